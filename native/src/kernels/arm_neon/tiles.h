// The tiles of quant/tiles.h as q-registers, for the integer matmuls of every ARM level. A
// q-register is a quarter of a 64-byte group: one quad (four columns) of four rows. Weights come
// out as signed bytes with the zero point removed, so no bias is left to add.
#pragma once

#include <arm_neon.h>

#include "base/inline.h"
#include "quant/tile_stream.h"
#include "quant/tiles.h"

namespace edge {
namespace {

constexpr int kParts = 4;  // quarters of a tile: rows 4 * part .. 4 * part + 3

// Reads tile bytes ahead of the strip's stream: a strip is longer than a page of the prefetcher.
template <int kBytes>
EDGE_INLINE void prefetch_ahead(const uint8_t* tile) {
  constexpr int kDistance = 2304;
  for (int b = 0; b < kBytes; b += 64) __builtin_prefetch(tile + kDistance + b);
}

// Four scale bytes of a part, less 128, as i32: their low bits, up to three, are the scale byte's.
EDGE_INLINE int32x4_t wide_scale_bytes(const uint8_t* sc, int part) {
  const int8x16_t bytes = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(sc), vdupq_n_u8(0x80)));
  const int16x8_t half = part < 2 ? vmovl_s8(vget_low_s8(bytes)) : vmovl_high_s8(bytes);
  return part % 2 == 0 ? vmovl_s16(vget_low_s16(half)) : vmovl_high_s16(half);
}
// group_scale() of quant/tiles.h: (sc & ~mask) + (mask + 1) / 2 - 128.
template <int kMask = 1>
EDGE_INLINE float32x4_t scales(int32x4_t wide) {
  const int32x4_t top = vorrq_s32(wide, vdupq_n_s32(kMask));
  if constexpr (kMask == 1) return vcvtq_f32_s32(top);
  return vcvtq_f32_s32(vsubq_s32(top, vdupq_n_s32((kMask - 1) / 2)));
}
// All ones in rows whose scale byte selects LUT 1.
EDGE_INLINE uint32x4_t lut1_rows(int32x4_t wide) { return vtstq_s32(wide, vdupq_n_s32(1)); }

struct Nibbles {
  uint8x16_t low[4], high[4];
  EDGE_MEMBER_INLINE explicit Nibbles(const uint8_t* p) {
    for (int j = 0; j < 4; ++j) {
      const uint8x16_t x = vld1q_u8(p + 64 * j);
      low[j] = vandq_u8(x, vdupq_n_u8(15));
      high[j] = vshrq_n_u8(x, 4);
    }
  }
};

EDGE_INLINE int8x16_t signed_lut(const uint8_t* lut, int zero) {
  return vreinterpretq_s8_u8(vsubq_u8(vld1q_u8(lut), vdupq_n_u8(static_cast<uint8_t>(zero))));
}
EDGE_INLINE void look_up(const uint8_t* nibbles, int8x16_t* w) {
  const int8x16_t lut = signed_lut(kLutE4, kLutE4Zero);
  const Nibbles x(nibbles);
  for (int j = 0; j < 4; ++j) {
    w[2 * j] = vqtbl1q_s8(lut, x.low[j]);
    w[2 * j + 1] = vqtbl1q_s8(lut, x.high[j]);
  }
}

// LUT 1 = LUT 0 + 2. For few rows it is cheaper to correct the sum (by 2 * sum(a) = -bias / 32),
// for more to correct the weights once: kShift.
EDGE_INLINE void shift_weights(int8x16_t* w, int n, uint32x4_t lut1) {
  const int8x16_t two = vandq_s8(vreinterpretq_s8_u32(lut1), vdupq_n_s8(kLutE4Shift));
  for (int t = 0; t < n; ++t) w[t] = vaddq_s8(w[t], two);
}
EDGE_INLINE int32x4_t lut1_sum(uint32x4_t lut1, int32_t bias) {
  return vandq_s32(vreinterpretq_s32_u32(lut1), vdupq_n_s32(-(bias >> 5)));
}

// Zero points of E3 and E2, index * kStep below the one in the looked-up weights: corrected in
// the weights or in the sum, as LUT 1 of E4.
template <int kStep>
EDGE_INLINE void move_weights(int8x16_t* w, int n, int32x4_t index) {
  const int8x16_t by = vreinterpretq_s8_s32(vmulq_n_s32(index, kStep * 0x01010101));
  for (int t = 0; t < n; ++t) w[t] = vaddq_s8(w[t], by);
}
template <int kStep>
EDGE_INLINE int32x4_t moved_sum(int32x4_t index, int32_t bias) {
  return vmulq_n_s32(index, -kStep * (bias >> 6));
}

// Each format gives a part of a tile: w, one register per quad; s, one per group; and start(), the
// value that the integer sum of a group begins with.

template <bool kShift>
struct E2_16 {
  static constexpr int kTileBytes = sizeof(TileE2_16);
  static constexpr int kGroups = 2;
  static constexpr int kMagnitude = kE2Zero;  // largest |weight|
  int8x16_t w[8];
  float32x4_t s[2];
  int32x4_t index[2];

  EDGE_MEMBER_INLINE E2_16(const uint8_t* tile, int part) {
    const int8x16_t even = signed_lut(kLutE2Low, kE2Zero);
    const int8x16_t odd = signed_lut(kLutE2High, kE2Zero);
    for (int g = 0; g < 2; ++g) {
      const int32x4_t wide = wide_scale_bytes(tile + 16 * g, part);
      s[g] = scales<kE2ZeroMask>(wide);
      index[g] = vandq_s32(wide, vdupq_n_s32(kE2ZeroMask));
      const uint8x16_t x = vld1q_u8(tile + 32 + 64 * g + 16 * part);
      const uint8x16_t low = vandq_u8(x, vdupq_n_u8(15));
      const uint8x16_t high = vshrq_n_u8(x, 4);
      w[4 * g] = vqtbl1q_s8(even, low);
      w[4 * g + 1] = vqtbl1q_s8(odd, low);
      w[4 * g + 2] = vqtbl1q_s8(even, high);
      w[4 * g + 3] = vqtbl1q_s8(odd, high);
      if constexpr (kShift) move_weights<kE2ZeroStep>(w + 4 * g, 4, index[g]);
    }
  }
  EDGE_MEMBER_INLINE int32x4_t start(const int32_t* bias, int g) const {
    if constexpr (kShift) return vdupq_n_s32(0);
    return moved_sum<kE2ZeroStep>(index[g], bias[g]);
  }
};

template <bool kShift>
struct E3_32 {
  static constexpr int kTileBytes = sizeof(TileE3_32);
  static constexpr int kGroups = 1;
  static constexpr int kMagnitude = kE3Zero;
  int8x16_t w[8];
  float32x4_t s[1];
  int32x4_t index;

  EDGE_MEMBER_INLINE E3_32(const uint8_t* tile, int part) {
    const int32x4_t wide = wide_scale_bytes(tile, part);
    s[0] = scales<kE3ZeroMask>(wide);
    index = vandq_s32(wide, vdupq_n_s32(kE3ZeroMask));
    const int8x16_t lut = signed_lut(kLutE3, kE3Zero);
    uint8x16_t x[4];
    for (int j = 0; j < 3; ++j) x[j] = vld1q_u8(tile + 16 + 64 * j + 16 * part);
    // The fourth bits of all nibbles: bits 0, 1 and 2 of quads 6 and 7.
    const uint8x16_t bits01 = vbslq_u8(vdupq_n_u8(0x11), vshrq_n_u8(x[0], 3), vshrq_n_u8(x[1], 2));
    x[3] = vbslq_u8(vdupq_n_u8(0x33), bits01, vshrq_n_u8(x[2], 1));
    for (int j = 0; j < 4; ++j) {
      w[2 * j] = vqtbl1q_s8(lut, vandq_u8(x[j], vdupq_n_u8(15)));
      w[2 * j + 1] = vqtbl1q_s8(lut, vshrq_n_u8(x[j], 4));
    }
    if constexpr (kShift) move_weights<kE3ZeroStep>(w, 8, index);
  }
  EDGE_MEMBER_INLINE int32x4_t start(const int32_t* bias, int) const {
    if constexpr (kShift) return vdupq_n_s32(0);
    return moved_sum<kE3ZeroStep>(index, bias[0] + bias[1]);
  }
};

template <bool kShift>
struct E4_16 {
  static constexpr int kTileBytes = sizeof(TileE4_16);
  static constexpr int kGroups = 2;
  static constexpr int kMagnitude = 64;
  int8x16_t w[8];
  float32x4_t s[2];
  uint32x4_t lut1[2];

  EDGE_MEMBER_INLINE E4_16(const uint8_t* tile, int part) {
    look_up(tile + 32 + 16 * part, w);
    for (int g = 0; g < 2; ++g) {
      const int32x4_t wide = wide_scale_bytes(tile + 16 * g, part);
      s[g] = scales(wide);
      lut1[g] = lut1_rows(wide);
      if constexpr (kShift) shift_weights(w + 4 * g, 4, lut1[g]);
    }
  }
  EDGE_MEMBER_INLINE int32x4_t start(const int32_t* bias, int g) const {
    if constexpr (kShift) return vdupq_n_s32(0);
    return lut1_sum(lut1[g], bias[g]);
  }
};

template <bool kShift>
struct E4_32 {
  static constexpr int kTileBytes = sizeof(TileE4_32);
  static constexpr int kGroups = 1;
  static constexpr int kMagnitude = 64;
  int8x16_t w[8];
  float32x4_t s[1];
  uint32x4_t lut1;

  EDGE_MEMBER_INLINE E4_32(const uint8_t* tile, int part) {
    look_up(tile + 16 + 16 * part, w);
    const int32x4_t wide = wide_scale_bytes(tile, part);
    s[0] = scales(wide);
    lut1 = lut1_rows(wide);
    if constexpr (kShift) shift_weights(w, 8, lut1);
  }
  EDGE_MEMBER_INLINE int32x4_t start(const int32_t* bias, int) const {
    if constexpr (kShift) return vdupq_n_s32(0);
    return lut1_sum(lut1, bias[0] + bias[1]);
  }
};

template <bool>
struct E6_16 {
  static constexpr int kTileBytes = sizeof(TileE6_16);
  static constexpr int kGroups = 2;
  static constexpr int kMagnitude = 32;
  int8x16_t w[8];
  float32x4_t s[2];

  EDGE_MEMBER_INLINE E6_16(const uint8_t* tile, int part) {
    const Nibbles x(tile + 32 + 16 * part);
    for (int g = 0; g < 2; ++g) {
      s[g] = scales(wide_scale_bytes(tile + 16 * g, part));
      const uint8x16_t h = vld1q_u8(tile + 288 + 64 * g + 16 * part);
      // Quads 4g + 0, 1 sit in bits 0..3 of the high byte, quads 4g + 2, 3 in bits 4..7.
      w[4 * g] = join(x.low[2 * g], vshlq_n_u8(h, 4));
      w[4 * g + 1] = join(x.high[2 * g], vshlq_n_u8(h, 2));
      w[4 * g + 2] = join(x.low[2 * g + 1], h);
      w[4 * g + 3] = join(x.high[2 * g + 1], vshrq_n_u8(h, 2));
    }
  }
  EDGE_MEMBER_INLINE int32x4_t start(const int32_t*, int) const { return vdupq_n_s32(0); }

 private:
  static EDGE_MEMBER_INLINE int8x16_t join(uint8x16_t low, uint8x16_t high) {
    const uint8x16_t q = vorrq_u8(low, vandq_u8(high, vdupq_n_u8(0x30)));
    return vreinterpretq_s8_u8(vsubq_u8(q, vdupq_n_u8(kE6Zero)));
  }
};

// Four u8 of a part as i32.
EDGE_INLINE int32x4_t wide_bytes(const uint8_t* p, int part) {
  const uint8x16_t bytes = vld1q_u8(p);
  const uint16x8_t half = part < 2 ? vmovl_u8(vget_low_u8(bytes)) : vmovl_high_u8(bytes);
  return vreinterpretq_s32_u32(part % 2 == 0 ? vmovl_u16(vget_low_u16(half))
                                             : vmovl_high_u16(half));
}
EDGE_INLINE float32x4_t wide_halves(const uint8_t* p, int part) {
  const uint16x4_t halves = vld1_u16(reinterpret_cast<const uint16_t*>(p) + 4 * part);
  return vcvt_f32_f16(vreinterpret_f16_u16(halves));
}
EDGE_INLINE void signed_nibbles(const uint8_t* nibbles, int8x16_t* w) {
  const Nibbles x(nibbles);
  for (int j = 0; j < 4; ++j) {
    w[2 * j] = vreinterpretq_s8_u8(x.low[j]);
    w[2 * j + 1] = vreinterpretq_s8_u8(x.high[j]);
  }
}

// -sum(q) of 32 columns, from -64 * sum(q) of 16.
EDGE_INLINE int32_t minus_sum_of(const int32_t* bias) { return (bias[0] + bias[1]) >> 6; }

// Nibbles as they are; the zero point of every row is taken off by start().
template <bool>
struct L4_32 {
  static constexpr int kTileBytes = sizeof(TileL4_32);
  static constexpr int kGroups = 1;
  static constexpr int kMagnitude = 15;
  int8x16_t w[8];
  float32x4_t s[1];
  int32x4_t zeros;

  EDGE_MEMBER_INLINE L4_32(const uint8_t* tile, int part) {
    s[0] = wide_halves(tile, part);
    zeros = wide_bytes(tile + 32, part);
    signed_nibbles(tile + 48 + 16 * part, w);
  }
  EDGE_MEMBER_INLINE int32x4_t start(const int32_t* bias, int) const {
    return vmulq_n_s32(zeros, minus_sum_of(bias));
  }
};

// Nibbles as they are; the minimum of every row meets -sum(q) as floats.
template <bool>
struct K4_32 {
  static constexpr int kTileBytes = sizeof(TileK4_32);
  static constexpr size_t kHeadBytes = TileK4_32::kHeadBytes;
  static constexpr int kGroups = 1;
  static constexpr int kMagnitude = 15;
  int8x16_t w[8];
  float32x4_t s[1];
  float32x4_t mins;

  EDGE_MEMBER_INLINE K4_32(HeadedTile packed, int part) {
    const uint8_t* tile = packed.tile;
    s[0] = vmulq_f32(wide_halves(packed.head, part), vcvtq_f32_s32(wide_bytes(tile, part)));
    mins = vmulq_f32(wide_halves(packed.head + 2 * kTileRows, part),
                     vcvtq_f32_s32(wide_bytes(tile + kTileRows, part)));
    signed_nibbles(tile + 2 * kTileRows + 16 * part, w);
  }
  EDGE_MEMBER_INLINE int32x4_t start(const int32_t*, int) const { return vdupq_n_s32(0); }
};

// A part of bytes biased by 128.
EDGE_INLINE void signed_bytes(const uint8_t* quads, int8x16_t* w) {
  static_assert(kE8Zero == 128 && kL8Zero == 128);
  for (int t = 0; t < 8; ++t) {
    w[t] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(quads + 64 * t), vdupq_n_u8(128)));
  }
}

template <bool>
struct E8_32 {
  static constexpr int kTileBytes = sizeof(TileE8_32);
  static constexpr int kGroups = 1;
  static constexpr int kMagnitude = 128;
  int8x16_t w[8];
  float32x4_t s[1];

  EDGE_MEMBER_INLINE E8_32(const uint8_t* tile, int part) {
    s[0] = scales(wide_scale_bytes(tile, part));
    signed_bytes(tile + 16 + 16 * part, w);
  }
  EDGE_MEMBER_INLINE int32x4_t start(const int32_t*, int) const { return vdupq_n_s32(0); }
};

template <bool>
struct L8_32 {
  static constexpr int kTileBytes = sizeof(TileL8_32);
  static constexpr int kGroups = 1;
  static constexpr int kMagnitude = 128;
  static constexpr bool kFloatScales = true;
  int8x16_t w[8];
  float32x4_t s[1];

  EDGE_MEMBER_INLINE L8_32(const uint8_t* tile, int part) {
    s[0] = wide_halves(tile, part);
    signed_bytes(tile + 32 + 16 * part, w);
  }
  EDGE_MEMBER_INLINE int32x4_t start(const int32_t*, int) const { return vdupq_n_s32(0); }
};

}  // namespace
}  // namespace edge
