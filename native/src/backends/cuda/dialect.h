// CUDA C++ for the kernels of backends/gpu: for nvcc and, with the header
// tests/emulation/cuda/cuda_runtime.h in place of the toolkit's, for any compiler.
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>
#include <string.h>

#include "backends/cuda/kernel_table.h"
#include "quant/tiles.h"

#if defined(__CUDACC__)
#define EDGE_SHARED(type, name, extent) __shared__ type name extent
#endif

#define EDGE_DEVICE edge::cuda
#define EDGE_FN static __device__ inline
#define EDGE_MEMBER_FN __device__
#define EDGE_ARGS const
#define EDGE_GROUP
#define EDGE_LOCAL

#define EDGE_KERNEL(name, Args, threads) \
  static __global__ void __launch_bounds__(threads) name(const Args args)
#define EDGE_AT edge::cuda::here()
#define EDGE_SYNC() __syncthreads()
#define EDGE_XOR_LANE(value, lanes) __shfl_xor_sync(0xffffffffu, value, lanes)
#define EDGE_LUT(bytes) table_of(bytes)

#define EDGE_JOIN2(a, b) a##b
#define EDGE_JOIN(a, b) EDGE_JOIN2(a, b)
#define EDGE_REGISTER(name, ...) \
  static const edge::cuda::Registered EDGE_JOIN(kRegistered, __COUNTER__)(name, __VA_ARGS__);
#define EDGE_EXPORT(kernel) EDGE_REGISTER(#kernel, kernel)
#define EDGE_EXPORT_AS(name, kernel, ...) EDGE_REGISTER(name, kernel<__VA_ARGS__>)

namespace edge::cuda {

// A thread: its number in its group, and its group's.
struct At {
  int index, x, y, z;
};
EDGE_FN At here() {
  return {static_cast<int>(threadIdx.x), static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y),
          static_cast<int>(blockIdx.z)};
}

EDGE_FN float square_root(float x) { return sqrtf(x); }
// c + the products of four int8.
EDGE_FN int dot4(int a, int b, int c) { return __dp4a(a, b, c); }

// A block's 32 activations.
EDGE_FN void load_block(const int8_t* from, int (&a)[8]) {
  memcpy(a, __builtin_assume_aligned(from, 16), sizeof a);
}

// A table of 16 bytes, and its entries for eight nibbles: of the low ones and of the high.
struct Lut {
  uint32_t words[4];
};
static constexpr Lut table_of(const uint8_t* bytes) {
  Lut table = {};
  for (int i = 0; i < 16; ++i) table.words[i / 4] |= uint32_t{bytes[i]} << 8 * (i % 4);
  return table;
}
EDGE_FN uint32_t lookup4(const Lut& table, uint32_t nibbles) {
  const uint32_t index = nibbles & 0x7777u;
  const uint32_t below8 = __byte_perm(table.words[0], table.words[1], index);
  const uint32_t from8 = __byte_perm(table.words[2], table.words[3], index);
  return __byte_perm(below8, from8, 0x3210u | (nibbles & 0x8888u) >> 1);
}
EDGE_FN void lookup8(const Lut& table, uint32_t nibbles, uint32_t& low, uint32_t& high) {
  const uint32_t first = lookup4(table, nibbles);
  const uint32_t second = lookup4(table, nibbles >> 16);
  low = __byte_perm(first, second, 0x6420);
  high = __byte_perm(first, second, 0x7531);
}

}  // namespace edge::cuda
