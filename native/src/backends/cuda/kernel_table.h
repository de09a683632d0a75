// The kernels of the library by name, with which backends/gpu calls them.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <string_view>

#if !defined(EDGE_KERNEL_FUNCTION)  // the emulator has its own
#define EDGE_KERNEL_FUNCTION(kernel) reinterpret_cast<const void*>(kernel)
#endif

namespace edge::cuda {

// What cudaLaunchKernel() and graphs know a kernel by, and the bytes of its struct of gpu/args.h.
struct Kernel {
  const void* function = nullptr;
  size_t args_bytes = 0;
};

// Null: there is none of that name.
const Kernel* find_kernel(std::string_view name);

// One in every kernel's source, before main().
struct Registered {
  template <class Args>
  Registered(const char* name, void (*kernel)(Args)) {
    add(name, {EDGE_KERNEL_FUNCTION(kernel), sizeof(Args)});
  }
  static void add(const char* name, Kernel kernel);
};

}  // namespace edge::cuda
