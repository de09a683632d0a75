// The kernels of the library by name, with which backends/gpu calls them.
#pragma once

#include <cuda_runtime.h>

#include <string_view>

namespace edge::cuda {

// Queues a kernel; args: its struct of gpu/args.h.
using Launch = void (*)(const void* args, dim3 grid, dim3 block, cudaStream_t stream);

// Null: there is none of that name.
Launch find_kernel(std::string_view name);

// One in every kernel's source, before main().
struct Registered {
  Registered(const char* name, Launch launch);
};

template <class Args>
Args args_of(void (*kernel)(Args));

}  // namespace edge::cuda
