// What every kernel source begins with. The sources are CUDA C++ for nvcc and, with the header
// tests/emulation/cuda/cuda_runtime.h in place of the toolkit's, C++ for any compiler: only a
// launch and a shared variable are written differently.
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define EDGE_LAUNCH(kernel, grid, block, stream) (kernel)<<<grid, block, 0, stream>>>
#define EDGE_SHARED(type, name, extent) __shared__ type name extent
#endif

namespace edge::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

}  // namespace edge::cuda
