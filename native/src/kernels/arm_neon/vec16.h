// 16 virtual lanes in four q-registers. scalar/vec16.h defines and documents the operations. Only
// armv8.0 instructions; min, max and to_int differ from the instructions of that name on NaN, zeros
// and values out of range, so they are spelled out.
#pragma once

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "base/inline.h"

namespace edge::arm_neon {

struct V {  // a: lanes 0..3, b: 4..7, c: 8..11, d: 12..15
  float32x4_t a, b, c, d;
};
struct I {
  int32x4_t a, b, c, d;
};
struct M {
  uint32x4_t a, b, c, d;
};

#define EDGE_UNARY(R, name, T, op) \
  EDGE_INLINE R name(T x) { return {op(x.a), op(x.b), op(x.c), op(x.d)}; }
#define EDGE_BINARY(R, name, T, op) \
  EDGE_INLINE R name(T x, T y) { return {op(x.a, y.a), op(x.b, y.b), op(x.c, y.c), op(x.d, y.d)}; }

// ---- memory

EDGE_INLINE V load(const float* p) {
  return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
EDGE_INLINE void store(float* p, V x) {
  vst1q_f32(p, x.a);
  vst1q_f32(p + 4, x.b);
  vst1q_f32(p + 8, x.c);
  vst1q_f32(p + 12, x.d);
}
EDGE_INLINE V load_n(const float* p, int n) {
  float lanes[16] = {};
  for (int l = 0; l < n; ++l) lanes[l] = p[l];
  return load(lanes);
}
EDGE_INLINE void store_n(float* p, V x, int n) {
  float lanes[16];
  store(lanes, x);
  for (int l = 0; l < n; ++l) p[l] = lanes[l];
}
EDGE_INLINE I load_i(const int32_t* p) {
  return {vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)};
}
EDGE_INLINE void store_i(int32_t* p, I x) {
  vst1q_s32(p, x.a);
  vst1q_s32(p + 4, x.b);
  vst1q_s32(p + 8, x.c);
  vst1q_s32(p + 12, x.d);
}
EDGE_INLINE I widen(int16x8_t lo, int16x8_t hi) {
  return {vmovl_s16(vget_low_s16(lo)), vmovl_high_s16(lo), vmovl_s16(vget_low_s16(hi)),
          vmovl_high_s16(hi)};
}
EDGE_INLINE I load_u8(const uint8_t* p) {
  const uint8x16_t bytes = vld1q_u8(p);
  return widen(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes))),
               vreinterpretq_s16_u16(vmovl_high_u8(bytes)));
}
EDGE_INLINE I load_i8(const int8_t* p) {
  const int8x16_t bytes = vld1q_s8(p);
  return widen(vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
}
EDGE_INLINE int8x16_t low_bytes(I x) {
  const int16x8_t lo = vmovn_high_s32(vmovn_s32(x.a), x.b);
  const int16x8_t hi = vmovn_high_s32(vmovn_s32(x.c), x.d);
  return vmovn_high_s16(vmovn_s16(lo), hi);
}
EDGE_INLINE void store_i8(int8_t* p, I x) { vst1q_s8(p, low_bytes(x)); }
EDGE_INLINE void store_u8(uint8_t* p, I x) { vst1q_u8(p, vreinterpretq_u8_s8(low_bytes(x))); }
EDGE_INLINE void store_i16(int16_t* p, I x) {
  vst1q_s16(p, vmovn_high_s32(vmovn_s32(x.a), x.b));
  vst1q_s16(p + 8, vmovn_high_s32(vmovn_s32(x.c), x.d));
}
EDGE_INLINE V load_f16(const uint16_t* p) {
  const float16x8_t lo = vreinterpretq_f16_u16(vld1q_u16(p));
  const float16x8_t hi = vreinterpretq_f16_u16(vld1q_u16(p + 8));
  return {vcvt_f32_f16(vget_low_f16(lo)), vcvt_high_f32_f16(lo), vcvt_f32_f16(vget_low_f16(hi)),
          vcvt_high_f32_f16(hi)};
}
EDGE_INLINE void store_f16(uint16_t* p, V x) {
  vst1q_u16(p, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.a), x.b)));
  vst1q_u16(p + 8, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.c), x.d)));
}

EDGE_INLINE V set1(float x) {
  const float32x4_t r = vdupq_n_f32(x);
  return {r, r, r, r};
}
EDGE_INLINE V zero() { return set1(0.0f); }
EDGE_INLINE I set1_i(int32_t x) {
  const int32x4_t r = vdupq_n_s32(x);
  return {r, r, r, r};
}
EDGE_INLINE I zero_i() { return set1_i(0); }

// ---- masks: select(m, x, y) is x where m, else y

EDGE_INLINE V select(M m, V x, V y) {
  return {vbslq_f32(m.a, x.a, y.a), vbslq_f32(m.b, x.b, y.b), vbslq_f32(m.c, x.c, y.c),
          vbslq_f32(m.d, x.d, y.d)};
}
EDGE_INLINE I select(M m, I x, I y) {
  return {vbslq_s32(m.a, x.a, y.a), vbslq_s32(m.b, x.b, y.b), vbslq_s32(m.c, x.c, y.c),
          vbslq_s32(m.d, x.d, y.d)};
}
EDGE_BINARY(M, mask_and, M, vandq_u32)
EDGE_BINARY(M, mask_or, M, vorrq_u32)
EDGE_UNARY(M, mask_not, M, vmvnq_u32)
EDGE_INLINE uint32_t mask_bits(M x) {
  static constexpr uint16_t kBits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t bits = vld1q_u16(kBits);
  const uint16x8_t lo = vmovn_high_u32(vmovn_u32(x.a), x.b);
  const uint16x8_t hi = vmovn_high_u32(vmovn_u32(x.c), x.d);
  return static_cast<uint32_t>(vaddvq_u16(vandq_u16(lo, bits))) |
         static_cast<uint32_t>(vaddvq_u16(vandq_u16(hi, bits))) << 8;
}
EDGE_INLINE bool any(M x) {
  return vmaxvq_u32(vorrq_u32(vorrq_u32(x.a, x.b), vorrq_u32(x.c, x.d))) != 0;
}

// ---- f32

EDGE_BINARY(V, add, V, vaddq_f32)
EDGE_BINARY(V, sub, V, vsubq_f32)
EDGE_BINARY(V, mul, V, vmulq_f32)
EDGE_BINARY(V, div, V, vdivq_f32)
EDGE_UNARY(V, sqrt, V, vsqrtq_f32)
EDGE_INLINE V fma(V x, V y, V z) {
  return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
          vfmaq_f32(z.d, x.d, y.d)};
}
EDGE_UNARY(V, neg, V, vnegq_f32)
EDGE_UNARY(V, abs, V, vabsq_f32)
EDGE_UNARY(V, floor, V, vrndmq_f32)
EDGE_UNARY(V, round_even, V, vrndnq_f32)
EDGE_BINARY(M, cmp_lt, V, vcltq_f32)
EDGE_BINARY(M, cmp_le, V, vcleq_f32)
EDGE_BINARY(M, cmp_gt, V, vcgtq_f32)
EDGE_BINARY(M, cmp_ge, V, vcgeq_f32)
EDGE_BINARY(M, cmp_eq, V, vceqq_f32)
EDGE_INLINE V min(V x, V y) { return select(cmp_lt(x, y), x, y); }
EDGE_INLINE V max(V x, V y) { return select(cmp_gt(x, y), x, y); }

// ---- i32

EDGE_UNARY(I, as_i, V, vreinterpretq_s32_f32)
EDGE_UNARY(V, as_f, I, vreinterpretq_f32_s32)
EDGE_UNARY(V, to_float, I, vcvtq_f32_s32)
EDGE_UNARY(I, nearest_int, V, vcvtnq_s32_f32)
// The instruction saturates and turns NaN into 0.
EDGE_INLINE I to_int(V x) {
  return select(cmp_lt(x, set1(0x1p31f)), nearest_int(x), set1_i(INT32_MIN));
}
EDGE_BINARY(I, add, I, vaddq_s32)
EDGE_BINARY(I, sub, I, vsubq_s32)
EDGE_BINARY(I, mul, I, vmulq_s32)
EDGE_BINARY(I, bit_and, I, vandq_s32)
EDGE_BINARY(I, bit_or, I, vorrq_s32)
EDGE_BINARY(I, bit_xor, I, veorq_s32)
EDGE_BINARY(I, min, I, vminq_s32)
EDGE_BINARY(I, max, I, vmaxq_s32)
EDGE_INLINE I shl(I x, int n) {
  const int32x4_t by = vdupq_n_s32(n);
  return {vshlq_s32(x.a, by), vshlq_s32(x.b, by), vshlq_s32(x.c, by), vshlq_s32(x.d, by)};
}
EDGE_INLINE I sar(I x, int n) { return shl(x, -n); }
EDGE_INLINE int32x4_t shr4(int32x4_t x, int32x4_t minus_n) {
  return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x), minus_n));
}
EDGE_INLINE I shr(I x, int n) {
  const int32x4_t by = vdupq_n_s32(-n);
  return {shr4(x.a, by), shr4(x.b, by), shr4(x.c, by), shr4(x.d, by)};
}
EDGE_BINARY(M, cmp_lt, I, vcltq_s32)
EDGE_BINARY(M, cmp_gt, I, vcgtq_s32)
EDGE_BINARY(M, cmp_eq, I, vceqq_s32)

EDGE_INLINE I add_where(M m, I x, I y) {
  return {vaddq_s32(x.a, vandq_s32(vreinterpretq_s32_u32(m.a), y.a)),
          vaddq_s32(x.b, vandq_s32(vreinterpretq_s32_u32(m.b), y.b)),
          vaddq_s32(x.c, vandq_s32(vreinterpretq_s32_u32(m.c), y.c)),
          vaddq_s32(x.d, vandq_s32(vreinterpretq_s32_u32(m.d), y.d))};
}

// ---- tables of 16 bytes

struct Table {
  uint8x16_t a;
};
EDGE_INLINE Table table_u8(const uint8_t* p) { return {vld1q_u8(p)}; }
EDGE_INLINE int32x4_t lookup4(Table t, int32x4_t index) {
  const int32x4_t rest = vdupq_n_s32(static_cast<int32_t>(0xffffff00));  // these bytes become 0
  return vreinterpretq_s32_u8(vqtbl1q_u8(t.a, vreinterpretq_u8_s32(vorrq_s32(index, rest))));
}
EDGE_INLINE I lookup(Table t, I index) {
  return {lookup4(t, index.a), lookup4(t, index.b), lookup4(t, index.c), lookup4(t, index.d)};
}

// ---- reductions

EDGE_INLINE float reduce_add(V x) {
  const float32x4_t r4 = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
  return vpadds_f32(vadd_f32(vget_low_f32(r4), vget_high_f32(r4)));
}
EDGE_INLINE int32_t reduce_max_i(I x) {
  return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.a, x.b), vmaxq_s32(x.c, x.d)));
}
EDGE_INLINE int32_t reduce_add_i(I x) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.b), vaddq_s32(x.c, x.d)));
}

#undef EDGE_UNARY
#undef EDGE_BINARY

}  // namespace edge::arm_neon
