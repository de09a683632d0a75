// Stands before the CUDA toolkit's header of this name where kernels are compiled for the CPU: what
// our sources use of the language and of the runtime, on lockstep.h. Device memory is the heap's.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "../lockstep.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

#define threadIdx (lockstep::thread_index())
#define blockIdx (lockstep::block_index())
#define blockDim (lockstep::block_dim())
#define gridDim (lockstep::grid_dim())
#define __syncthreads() lockstep::sync_group(LOCKSTEP_SITE)
#define __syncwarp() lockstep::sync_warp(LOCKSTEP_SITE)
#define __shfl_xor_sync(mask, value, lanes) \
  lockstep::exchange((value), lockstep::thread_number() ^ unsigned(lanes), LOCKSTEP_SITE)
#define __shfl_sync(mask, value, lane) lockstep::exchange((value), unsigned(lane), LOCKSTEP_SITE)

// What differs from nvcc in the text of our kernels: backends/cuda/device.h.
#define EDGE_LAUNCH(kernel, grid, block, stream) cuda_on_cpu::launcher(kernel, grid, block, stream)
#define EDGE_SHARED(type, name, extent) type(&name) extent = lockstep::shared<type extent>([] {})

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) int4 {
  int x, y, z, w;
};

namespace cuda_on_cpu {
template <class... Args>
auto launcher(void (*kernel)(Args...), dim3 grid, dim3 block, void*) {
  return [=](Args... args) {
    lockstep::launch({grid.x, grid.y, grid.z}, {block.x, block.y, block.z},
                     [&] { kernel(args...); });
  };
}
}  // namespace cuda_on_cpu

inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i) {
    c += int{static_cast<int8_t>(a >> 8 * i)} * int{static_cast<int8_t>(b >> 8 * i)};
  }
  return c;
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selectors) {
  const uint64_t bytes = uint64_t{high} << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned from = selectors >> 4 * i & 7;
    result |= static_cast<unsigned>(bytes >> 8 * from & 255) << 8 * i;
  }
  return result;
}

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDefault };
struct cudaDeviceProp {
  char name[256];
  int major, minor;
};

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "out of memory";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* n) {
  *n = 1;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"emulated", 8, 0};
  return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** memory, size_t n_bytes) {
  *memory = std::malloc(n_bytes);
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
inline cudaError_t cudaMallocManaged(void** memory, size_t n_bytes) {
  return cudaMalloc(memory, n_bytes);
}
inline cudaError_t cudaMallocHost(void** memory, size_t n_bytes) {
  return cudaMalloc(memory, n_bytes);
}
inline cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n_bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  std::memcpy(to, from, n_bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int byte, size_t n_bytes, cudaStream_t) {
  std::memset(to, byte, n_bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = nullptr;
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
