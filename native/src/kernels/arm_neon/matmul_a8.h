// The K-templated integer matmul of every ARM level. A tile is unpacked one part (4 rows) at a time
// into eight registers and used for all rows of the call; tiles are read once, in order. A level
// supplies Isa: how weights meet activations, one row or, where kPairs, also two rows at once.
#pragma once

#include "kernels/arm_neon/tiles.h"
#include "kernels/matmul_args.h"

namespace edge {
namespace {

// The activations of one row that meet one tile.
struct ActBlock {
  const int8_t* q;      // [32]
  const int32_t* bias;  // [2]
  float d;
};
EDGE_INLINE ActBlock act_block(const MatmulArgs& args, int r, int64_t i) {
  const int64_t block = i * args.n_rows + r;
  return {args.q + 32 * block, args.bias + 2 * block, args.d[block]};
}

// x of docs/KERNELS.md for four rows, from the integer sum of each group. Both products of a
// 16-group format are exact in f32, so the fma rounds the exact sum once. A minimum meets -sum(q).
template <class Fmt>
EDGE_INLINE float32x4_t block_value(const Fmt& part, const int32x4_t* sum, const int32_t* bias) {
  if constexpr (requires { &Fmt::mins; }) {
    const float32x4_t p = vmulq_n_f32(part.mins, static_cast<float>(minus_sum_of(bias)));
    return vfmaq_f32(p, part.s[0], vcvtq_f32_s32(sum[0]));
  }
  const float32x4_t x0 = vmulq_f32(part.s[0], vcvtq_f32_s32(sum[0]));
  if constexpr (Fmt::kGroups == 1) return x0;
  return vfmaq_f32(x0, part.s[Fmt::kGroups - 1], vcvtq_f32_s32(sum[Fmt::kGroups - 1]));
}

// Every part reads the same activations. Compilers keep them in registers from part to part, spill
// for it and lose; reading them again from L1 is cheaper.
EDGE_INLINE void forget_loads() {
#if defined(__GNUC__)
  asm volatile("" ::: "memory");
#endif
}

// f += x * d for K rows (K == 0: for n_rows) of one part of a tile.
template <class Isa, class Fmt, int K, class Packed>
EDGE_INLINE void add_part(Packed tile, int part, const MatmulArgs& args, int64_t i,
                          float32x4_t (*f)[kParts]) {
  const int n_rows = K > 0 ? K : args.n_rows;
  const Fmt weights(tile, part);
  const Isa isa(weights.w);
  int r = 0;
  if constexpr (Isa::kPairs) {
    for (; r + 2 <= n_rows; r += 2) {
      const ActBlock a = act_block(args, r, i);
      const ActBlock b = act_block(args, r + 1, i);
      int32x4_t sum_a[Fmt::kGroups], sum_b[Fmt::kGroups];
      isa.template dot_pair<Fmt>(weights, a, b, sum_a, sum_b);
      f[r][part] = vfmaq_n_f32(f[r][part], block_value(weights, sum_a, a.bias), a.d);
      f[r + 1][part] = vfmaq_n_f32(f[r + 1][part], block_value(weights, sum_b, b.bias), b.d);
    }
  }
  for (; r < n_rows; ++r) {
    const ActBlock a = act_block(args, r, i);
    int32x4_t sum[Fmt::kGroups];
    isa.template dot<Fmt>(weights, a, sum);
    f[r][part] = vfmaq_n_f32(f[r][part], block_value(weights, sum, a.bias), a.d);
  }
}

template <class Isa, class Fmt, int K>
void matmul_k(const MatmulArgs& shared_args) {
  const MatmulArgs args = shared_args;  // a copy that forget_loads() leaves in registers
  const int n_rows = K > 0 ? K : args.n_rows;
  const size_t strip_size = strip_bytes_of<Fmt>(Fmt::kTileBytes, args.n_tiles);
  for (int64_t s = 0; s < args.n_strips; ++s) {
    const uint8_t* strip = args.strips + static_cast<size_t>(s) * strip_size;
    const uint8_t* tile = strip + tiles_offset_of<Fmt>(args.n_tiles);
    float32x4_t f[K > 0 ? K : kMaxKRows][kParts];
    for (int r = 0; r < n_rows; ++r) {
      for (int part = 0; part < kParts; ++part) f[r][part] = vdupq_n_f32(0);
    }
    for (int64_t i = 0; i < args.n_tiles; ++i, tile += Fmt::kTileBytes) {
      prefetch_ahead<Fmt::kTileBytes>(tile);
      const auto packed = packed_tile<Fmt>(strip, tile, i);
      // Unrolled by hand: f must live in registers where K allows it.
      add_part<Isa, Fmt, K>(packed, 0, args, i, f);
      forget_loads();
      add_part<Isa, Fmt, K>(packed, 1, args, i, f);
      forget_loads();
      add_part<Isa, Fmt, K>(packed, 2, args, i, f);
      forget_loads();
      add_part<Isa, Fmt, K>(packed, 3, args, i, f);
    }
    const float* d_row = reinterpret_cast<const float*>(strip);
    for (int r = 0; r < n_rows; ++r) {
      float* y = args.y + r * args.y_stride + s * kTileRows;
      for (int part = 0; part < kParts; ++part) {
        vst1q_f32(y + 4 * part, vmulq_f32(f[r][part], vld1q_f32(d_row + 4 * part)));
      }
    }
  }
}

// Fmt<false> corrects sums for LUT 1, Fmt<true> the weights.
template <class Isa, template <bool> class Fmt>
EDGE_INLINE void matmul(const MatmulArgs& args) {
  switch (args.n_rows) {
    case 1:
      return matmul_k<Isa, Fmt<false>, 1>(args);
    case 2:
      return matmul_k<Isa, Fmt<false>, 2>(args);
    case 3:
      return matmul_k<Isa, Fmt<true>, 3>(args);
    case 4:
      return matmul_k<Isa, Fmt<true>, 4>(args);
    default:
      return matmul_k<Isa, Fmt<true>, 0>(args);
  }
}

}  // namespace
}  // namespace edge
