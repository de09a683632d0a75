// The Metal Shading Language for the kernels of backends/gpu: for Apple's compiler and, with
// tests/emulation/metal/metal_stdlib in place of its header, for any other. Sums have the CPU's
// bits: no operation may be reordered or fused but where the source says so, which the pragmas say
// where the compiler knows them and the build's options where it does not.
#pragma once

#include <metal_stdlib>

#if __METAL_VERSION__ >= 320
#pragma METAL fp math_mode(safe)
#pragma METAL fp contract(off)
#endif

using namespace metal;

#include "backends/gpu/args.h"
#include "quant/tiles.h"

#define EDGE_DEVICE edge::msl
#define EDGE_FN static inline
#define EDGE_MEMBER_FN
#define EDGE_ARGS constant const
#define EDGE_GROUP threadgroup
#define EDGE_LOCAL thread

#define EDGE_KERNEL(name, Args, n_threads)                                                       \
  [[kernel, max_total_threads_per_threadgroup(n_threads)]] void name(                            \
      constant const Args& args [[buffer(0)]], uint3 group_at_ [[threadgroup_position_in_grid]], \
      uint thread_at_ [[thread_index_in_threadgroup]])
#define EDGE_AT                                                                                \
  {static_cast<int>(thread_at_), static_cast<int>(group_at_.x), static_cast<int>(group_at_.y), \
   static_cast<int>(group_at_.z)}
#define EDGE_SYNC() threadgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup)
#define EDGE_XOR_LANE(value, lanes) simd_shuffle_xor(value, static_cast<ushort>(lanes))
#define EDGE_LUT(bytes) bytes

#if !defined(EDGE_EMULATED)
#define EDGE_SHARED(type, name, extent) threadgroup type name extent
#define EDGE_EXPORT(kernel)
#define EDGE_EXPORT_AS(name, function, ...) \
  template [[host_name(name)]] [[kernel]] decltype(function<__VA_ARGS__>) function<__VA_ARGS__>;
#endif

namespace edge {
namespace msl {

// A thread: its number in its group, and its group's.
struct At {
  int index, x, y, z;
};

EDGE_FN float square_root(float x) { return ::metal::precise::sqrt(x); }
// c + the products of four int8.
EDGE_FN int dot4(int a, int b, int c) {
  const char4 x = as_type<char4>(a), y = as_type<char4>(b);
  return c + x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
}

// A block's 32 activations.
EDGE_FN void load_block(device const int8_t* from, thread int (&a)[8]) {
  device const int4* quads = reinterpret_cast<device const int4*>(from);
  const int4 first = quads[0], second = quads[1];
  a[0] = first.x, a[1] = first.y, a[2] = first.z, a[3] = first.w;
  a[4] = second.x, a[5] = second.y, a[6] = second.z, a[7] = second.w;
}

// A table of 16 bytes, and its entries for eight nibbles: of the low ones and of the high.
typedef constant const uint8_t* Lut;
EDGE_FN void lookup8(Lut table, uint32_t nibbles, thread uint32_t& low, thread uint32_t& high) {
  low = high = 0;
  for (int i = 0; i < 4; ++i) {
    low |= static_cast<uint32_t>(table[nibbles >> 8 * i & 15]) << 8 * i;
    high |= static_cast<uint32_t>(table[nibbles >> (8 * i + 4) & 15]) << 8 * i;
  }
}

}  // namespace msl
}  // namespace edge
