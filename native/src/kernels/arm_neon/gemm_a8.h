// The integer matmul for many rows on ARM: generic/gemm_a8.inl.h with sums that stay in registers
// over a block of tiles, half a strip (8 rows of weights) at a time.
//
// A level says how weights meet activations. One of its sums (a q-register) belongs to a unit of
// weights and a unit of activations:
//   kTileUnits, kUnitBytes     units of weights in a tile, the bytes of one
//   kActRows, kActUnits        rows of a unit of activations, how many units are used at once
//   pack(), pack_scales()      a part of a tile (tiles.h) as units
//   Acts<A>                    the activations of A units that meet a tile, and their scales d
//   dots()                     a unit of weights times A of activations, one group
//   minus_sums()               -sum(q) of A units of activations: for zero points and minima
//   load_sums(), store_sums()  sums from and to rows of 16 floats
#pragma once

#include "kernels/arm_neon/tiles.h"
#include "kernels/arm_neon/vec16.h"
#include "kernels/matmul_args.h"

namespace edge {
namespace arm_neon {
namespace {

EDGE_INLINE void prefetch_l1(const void* p) { __builtin_prefetch(p); }
EDGE_INLINE void prefetch_l2(const void* p) { __builtin_prefetch(p, 0, 2); }
#include "kernels/generic/gemm_a8.inl.h"

constexpr int kHalves = 2;

// Zero by an instruction of its own: compilers keep a zero in a register and copy it. volatile
// keeps it after what came before it is settled: they would begin with the next unit and spill
// sums.
EDGE_INLINE int32x4_t zero_sum() {
#if defined(__GNUC__)
  int32x4_t x;
  asm volatile("movi %0.4s, #0" : "=w"(x));
  return x;
#else
  return vdupq_n_s32(0);
#endif
}
EDGE_INLINE void settle(float32x4_t& x) {
#if defined(__GNUC__)
  asm volatile("" : "+w"(x));
#endif
}

// Rows of a panel's block. Where a unit of two rows has only one left, it takes that one twice:
// the second row is `next` = 0 rows after the first.
struct BlockRows {
  const int8_t* q;  // [][32]
  const float* d;
  const int32_t* bias;  // [][2]
  int next;
};

template <class Part>
struct HeadsOf {};
template <class Part>
  requires kHasHeads<Part>
struct HeadsOf<Part> {
  static constexpr size_t kHeadBytes = Part::kHeadBytes;
};

template <class Level, class Part>
struct Format : HeadsOf<Part> {
  static constexpr int kTileBytes = Part::kTileBytes;
  static constexpr int kGroups = Part::kGroups;
  static constexpr int kUnits = Level::kTileUnits / kHalves;
  // Each row has a zero point.
  static constexpr bool kHasZeros = requires { &Part::zeros; };
  static constexpr bool kHasMins = requires { &Part::mins; };  // the same with minima, floats too
  static constexpr bool kFloatScales = kHasZeros || requires { Part::kFloatScales; };

  struct Unit {
    int8_t w[Level::kUnitBytes];
    // Scales of the weights of each lane of a sum. kFloatScales: bits of the f32. kHasZeros: and
    // zero points; kHasMins: bits of scales and minima.
    int32_t s[kHasZeros || kHasMins ? 2 : kGroups][4];
  };
  struct Tile {
    Unit units[Level::kTileUnits];

    template <class Packed>
    EDGE_MEMBER_INLINE void unpack(Packed packed) {
      for (int part = 0; part < kParts; ++part) {
        const Part weights(packed, part);
        Unit* unit = units + part * Level::kTileUnits / kParts;
        Level::pack(weights.w, unit);
        if constexpr (kHasZeros) {
          Level::pack_scales(vreinterpretq_s32_f32(weights.s[0]), 0, unit);
          Level::pack_scales(weights.zeros, 1, unit);
        } else if constexpr (kHasMins) {
          Level::pack_scales(vreinterpretq_s32_f32(weights.s[0]), 0, unit);
          Level::pack_scales(vreinterpretq_s32_f32(weights.mins), 1, unit);
        } else if constexpr (kFloatScales) {
          Level::pack_scales(vreinterpretq_s32_f32(weights.s[0]), 0, unit);
        } else {
          for (int g = 0; g < kGroups; ++g) {
            Level::pack_scales(vcvtq_s32_f32(weights.s[g]), g, unit);
          }
        }
      }
    }
  };

  struct Rows {
    const int8_t* q;
    const int32_t* bias;
    EDGE_MEMBER_INLINE void prepare(const int8_t* from, const int32_t* from_bias, int) {
      q = from;
      bias = from_bias;
    }
  };

  static EDGE_MEMBER_INLINE void add_panel(const Tile* tiles, int n_tiles, const Rows& rows,
                                           const float* d, int n_rows, float* sums) {
    constexpr int kMost = Level::kActRows * Level::kActUnits;
    for (int half = 0; half < kHalves; ++half) {
      int row = 0;
      for (; row + kMost <= n_rows; row += kMost) {
        add_rows<Level::kActUnits>(tiles, n_tiles, half, block_rows(rows, d, row, 1), n_rows,
                                   sums + kTileRows * row);
      }
      for (; row < n_rows; row += Level::kActRows) {
        const int next = row + Level::kActRows <= n_rows ? 1 : 0;
        add_rows<1>(tiles, n_tiles, half, block_rows(rows, d, row, next), n_rows,
                    sums + kTileRows * row);
      }
    }
  }

 private:
  static EDGE_MEMBER_INLINE BlockRows block_rows(const Rows& rows, const float* d, int row,
                                                 int next) {
    return {rows.q + kTileK * row, d + row, rows.bias + 2 * row, next};
  }

  template <int A>
  static EDGE_MEMBER_INLINE void add_rows(const Tile* tiles, int n_tiles, int half, BlockRows rows,
                                          int n_rows, float* sums) {
    float32x4_t f[kUnits * A];
    Level::template load_sums<A>(sums, half, rows.next, f);
    for (int i = 0; i < n_tiles; ++i) {
      const typename Level::template Acts<A> acts(rows);
      int32x4_t minus_sums[A];
      if constexpr (kHasZeros || kHasMins) Level::template minus_sums<A>(rows, minus_sums);
      EDGE_UNROLL
      for (int u = 0; u < kUnits; ++u) {
        add_unit<A>(tiles[i].units[half * kUnits + u], acts, minus_sums, f + u * A);
      }
      rows.q += kTileK * n_rows;
      rows.d += n_rows;
      rows.bias += 2 * n_rows;
    }
    Level::template store_sums<A>(f, half, rows.next, sums);
  }

  // f += float(s0*D0 + s1*D1) * d: the sum is exact in i32 (docs/KERNELS.md), so that it is rounded
  // once. For one group float(s) * float(D) rounds the same exact product.
  template <int A>
  static EDGE_MEMBER_INLINE void add_unit(const Unit& unit,
                                          const typename Level::template Acts<A>& acts,
                                          const int32x4_t* minus_sums, float32x4_t* f) {
    int32x4_t x[A], dots[A];
    Level::template dots<Part, A>(unit.w, acts, 0, dots);
    if constexpr (kFloatScales) {
      const float32x4_t scale = vreinterpretq_f32_s32(vld1q_s32(unit.s[0]));
      EDGE_UNROLL
      for (int a = 0; a < A; ++a) {
        x[a] = dots[a];
        if constexpr (kHasZeros) x[a] = vmlaq_s32(x[a], vld1q_s32(unit.s[1]), minus_sums[a]);
        f[a] = vfmaq_f32(f[a], vmulq_f32(scale, vcvtq_f32_s32(x[a])), acts.d[a]);
        settle(f[a]);
      }
      return;
    }
    if constexpr (kHasMins) {
      const float32x4_t scale = vreinterpretq_f32_s32(vld1q_s32(unit.s[0]));
      const float32x4_t min = vreinterpretq_f32_s32(vld1q_s32(unit.s[1]));
      EDGE_UNROLL
      for (int a = 0; a < A; ++a) {
        const float32x4_t p = vmulq_f32(min, vcvtq_f32_s32(minus_sums[a]));
        f[a] = vfmaq_f32(f[a], vfmaq_f32(p, scale, vcvtq_f32_s32(dots[a])), acts.d[a]);
        settle(f[a]);
      }
      return;
    }
    EDGE_UNROLL
    for (int a = 0; a < A; ++a) x[a] = vmulq_s32(dots[a], vld1q_s32(unit.s[0]));
    if constexpr (kGroups == 2) {
      Level::template dots<Part, A>(unit.w, acts, 1, dots);
      EDGE_UNROLL
      for (int a = 0; a < A; ++a) x[a] = vmlaq_s32(x[a], dots[a], vld1q_s32(unit.s[1]));
    }
    EDGE_UNROLL
    for (int a = 0; a < A; ++a) {
      f[a] = vfmaq_f32(f[a], vcvtq_f32_s32(x[a]), acts.d[a]);
      settle(f[a]);
    }
  }
};

// For levels whose sums are four rows of weights and one of activations: a unit is a part.
struct PartUnits {
  static constexpr int kTileUnits = kParts;
  static constexpr int kUnitBytes = 128;
  static constexpr int kActRows = 1;

  template <class Unit>
  static EDGE_MEMBER_INLINE void pack(const int8x16_t* quads, Unit* unit) {
    for (int t = 0; t < 8; ++t) vst1q_s8(unit->w + 16 * t, quads[t]);
  }
  template <class Unit>
  static EDGE_MEMBER_INLINE void pack_scales(int32x4_t scales, int g, Unit* unit) {
    vst1q_s32(unit->s[g], scales);
  }
  template <int A>
  static EDGE_MEMBER_INLINE void minus_sums(const BlockRows& rows, int32x4_t* out) {
    EDGE_UNROLL
    for (int a = 0; a < A; ++a) out[a] = vdupq_n_s32(minus_sum_of(rows.bias + 2 * a));
  }
  template <int A>
  static EDGE_MEMBER_INLINE void load_sums(const float* sums, int half, int, float32x4_t* f) {
    EDGE_UNROLL
    for (int a = 0; a < A; ++a) {
      f[a] = vld1q_f32(sums + kTileRows * a + 8 * half);
      f[A + a] = vld1q_f32(sums + kTileRows * a + 8 * half + 4);
    }
  }
  template <int A>
  static EDGE_MEMBER_INLINE void store_sums(const float32x4_t* f, int half, int, float* sums) {
    EDGE_UNROLL
    for (int a = 0; a < A; ++a) {
      vst1q_f32(sums + kTileRows * a + 8 * half, f[a]);
      vst1q_f32(sums + kTileRows * a + 8 * half + 4, f[A + a]);
    }
  }
};

}  // namespace
}  // namespace arm_neon
}  // namespace edge
