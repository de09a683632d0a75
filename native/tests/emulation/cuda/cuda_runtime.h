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
#define __syncthreads() lockstep::sync_group(LOCKSTEP_SITE)
#define __syncwarp() lockstep::sync_warp(LOCKSTEP_SITE)
#define __shfl_xor_sync(mask, value, lanes) \
  lockstep::exchange((value), lockstep::thread_number() ^ unsigned(lanes), LOCKSTEP_SITE)
#define __shfl_sync(mask, value, lane) lockstep::exchange((value), unsigned(lane), LOCKSTEP_SITE)

// What differs from nvcc in the text of our kernels: backends/cuda/dialect.h, kernel_table.h.
#define EDGE_SHARED(type, name, extent) type(&name) extent = lockstep::shared<type extent>([] {})
#define EDGE_KERNEL_FUNCTION(kernel) cuda_on_cpu::function_of(kernel)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) int4 {
  int x, y, z, w;
};

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

#include "runtime_calls.h"
