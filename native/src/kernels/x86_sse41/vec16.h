// 16 virtual lanes in four xmm, without FMA or F16C. scalar/vec16.h defines and documents the
// operations; fma and f16 are exact emulations.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "base/inline.h"

namespace edge::x86_sse41 {

struct V {  // a: lanes 0..3, b: 4..7, c: 8..11, d: 12..15
  __m128 a, b, c, d;
};
struct I {
  __m128i a, b, c, d;
};
struct M {
  __m128 a, b, c, d;
};

#define EDGE_UNARY(R, name, T, op) \
  EDGE_INLINE R name(T x) { return {op(x.a), op(x.b), op(x.c), op(x.d)}; }
#define EDGE_BINARY(R, name, T, op) \
  EDGE_INLINE R name(T x, T y) { return {op(x.a, y.a), op(x.b, y.b), op(x.c, y.c), op(x.d, y.d)}; }
#define EDGE_SHIFT(name, op) \
  EDGE_INLINE I name(I x, int n) { return {op(x.a, n), op(x.b, n), op(x.c, n), op(x.d, n)}; }

// ---- memory

EDGE_INLINE V load(const float* p) {
  return {_mm_loadu_ps(p), _mm_loadu_ps(p + 4), _mm_loadu_ps(p + 8), _mm_loadu_ps(p + 12)};
}
EDGE_INLINE void store(float* p, V x) {
  _mm_storeu_ps(p, x.a);
  _mm_storeu_ps(p + 4, x.b);
  _mm_storeu_ps(p + 8, x.c);
  _mm_storeu_ps(p + 12, x.d);
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
EDGE_INLINE __m128i load_16_bytes(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
EDGE_INLINE void store_16_bytes(void* p, __m128i x) {
  _mm_storeu_si128(static_cast<__m128i*>(p), x);
}
EDGE_INLINE I load_i(const int32_t* p) {
  return {load_16_bytes(p), load_16_bytes(p + 4), load_16_bytes(p + 8), load_16_bytes(p + 12)};
}
EDGE_INLINE void store_i(int32_t* p, I x) {
  store_16_bytes(p, x.a);
  store_16_bytes(p + 4, x.b);
  store_16_bytes(p + 8, x.c);
  store_16_bytes(p + 12, x.d);
}
EDGE_INLINE I load_u8(const uint8_t* p) {
  const __m128i bytes = load_16_bytes(p);
  return {_mm_cvtepu8_epi32(bytes), _mm_cvtepu8_epi32(_mm_srli_si128(bytes, 4)),
          _mm_cvtepu8_epi32(_mm_srli_si128(bytes, 8)),
          _mm_cvtepu8_epi32(_mm_srli_si128(bytes, 12))};
}
EDGE_INLINE I load_i8(const int8_t* p) {
  const __m128i bytes = load_16_bytes(p);
  return {_mm_cvtepi8_epi32(bytes), _mm_cvtepi8_epi32(_mm_srli_si128(bytes, 4)),
          _mm_cvtepi8_epi32(_mm_srli_si128(bytes, 8)),
          _mm_cvtepi8_epi32(_mm_srli_si128(bytes, 12))};
}
EDGE_INLINE void store_i8(int8_t* p, I x) {
  store_16_bytes(p, _mm_packs_epi16(_mm_packs_epi32(x.a, x.b), _mm_packs_epi32(x.c, x.d)));
}
EDGE_INLINE void store_i16(int16_t* p, I x) {
  store_16_bytes(p, _mm_packs_epi32(x.a, x.b));
  store_16_bytes(p + 8, _mm_packs_epi32(x.c, x.d));
}
EDGE_INLINE void store_u8(uint8_t* p, I x) {
  store_16_bytes(p, _mm_packus_epi16(_mm_packs_epi32(x.a, x.b), _mm_packs_epi32(x.c, x.d)));
}

EDGE_INLINE V set1(float x) {
  const __m128 r = _mm_set1_ps(x);
  return {r, r, r, r};
}
EDGE_INLINE V zero() { return set1(0.0f); }
EDGE_INLINE I set1_i(int32_t x) {
  const __m128i r = _mm_set1_epi32(x);
  return {r, r, r, r};
}
EDGE_INLINE I zero_i() { return set1_i(0); }

// ---- fma by f64 (base/fma.h has the proof)

// p + c rounded to odd, 2 lanes.
EDGE_INLINE __m128d add_round_to_odd(__m128d p, __m128d c) {
  const __m128d s = _mm_add_pd(p, c);
  const __m128d c_part = _mm_sub_pd(s, p);
  const __m128d error = _mm_add_pd(_mm_sub_pd(p, _mm_sub_pd(s, c_part)), _mm_sub_pd(c, c_part));
  const __m128d sign = _mm_set1_pd(-0.0);
  const __m128i one = _mm_set1_epi64x(1);
  // A NaN error, that is an infinite sum, compares false.
  const __m128d is_inexact = _mm_cmplt_pd(_mm_setzero_pd(), _mm_andnot_pd(sign, error));
  const __m128i is_even =
      _mm_cmpeq_epi64(_mm_and_si128(_mm_castpd_si128(s), one), _mm_setzero_si128());
  const __m128d is_inward = _mm_cmplt_pd(_mm_xor_pd(_mm_and_pd(s, sign), error), _mm_setzero_pd());
  const __m128i step = _mm_or_si128(_mm_castpd_si128(is_inward), one);  // towards the error: +1, -1
  const __m128i moves = _mm_and_si128(_mm_castpd_si128(is_inexact), is_even);
  return _mm_castsi128_pd(_mm_add_epi64(_mm_castpd_si128(s), _mm_and_si128(moves, step)));
}
EDGE_INLINE __m128 join_pd(__m128d lo, __m128d hi) {
  return _mm_movelh_ps(_mm_cvtpd_ps(lo), _mm_cvtpd_ps(hi));
}
EDGE_INLINE __m128d high_pd(__m128 x) { return _mm_cvtps_pd(_mm_movehl_ps(x, x)); }

// 4 lanes, out of line: a kernel has many fma, and hardly one in 2^27 comes here.
EDGE_COLD __m128 fma4_by_odd(__m128 x, __m128 y, __m128 z) {
  const __m128d lo =
      add_round_to_odd(_mm_mul_pd(_mm_cvtps_pd(x), _mm_cvtps_pd(y)), _mm_cvtps_pd(z));
  const __m128d hi = add_round_to_odd(_mm_mul_pd(high_pd(x), high_pd(y)), high_pd(z));
  return join_pd(lo, hi);
}
// 4 lanes. Rounding twice, to f64 and then to f32, differs from once only if the f64 sum sits on a
// midpoint of two f32 or if the result is subnormal; only then is the sum rounded to odd.
EDGE_INLINE __m128 fma4(__m128 x, __m128 y, __m128 z) {
  const __m128d p_lo = _mm_mul_pd(_mm_cvtps_pd(x), _mm_cvtps_pd(y));
  const __m128d p_hi = _mm_mul_pd(high_pd(x), high_pd(y));
  const __m128d c_lo = _mm_cvtps_pd(z);
  const __m128d c_hi = high_pd(z);
  const __m128d s_lo = _mm_add_pd(p_lo, c_lo);
  const __m128d s_hi = _mm_add_pd(p_hi, c_hi);
  const __m128 r = join_pd(s_lo, s_hi);

  const __m128i low_words = _mm_castps_si128(
      _mm_shuffle_ps(_mm_castpd_ps(s_lo), _mm_castpd_ps(s_hi), _MM_SHUFFLE(2, 0, 2, 0)));
  const __m128i dropped = _mm_and_si128(low_words, _mm_set1_epi32(0x1fffffff));
  const __m128i is_midpoint = _mm_cmpeq_epi32(dropped, _mm_set1_epi32(0x10000000));
  // 1 <= magnitude bits < 2^24: subnormal or close to it. Sums that round to 0 are exact.
  const __m128i magnitude = _mm_and_si128(_mm_castps_si128(r), _mm_set1_epi32(0x7fffffff));
  const __m128i less_one = _mm_sub_epi32(magnitude, _mm_set1_epi32(1));
  const __m128i is_tiny =
      _mm_cmpeq_epi32(_mm_min_epu32(less_one, _mm_set1_epi32(0x00fffffe)), less_one);
  const __m128i is_hard = _mm_or_si128(is_midpoint, is_tiny);
  if (__builtin_expect(_mm_movemask_epi8(is_hard) == 0, 1)) return r;
  return fma4_by_odd(x, y, z);
}

// ---- f32

EDGE_BINARY(V, add, V, _mm_add_ps)
EDGE_BINARY(V, sub, V, _mm_sub_ps)
EDGE_BINARY(V, mul, V, _mm_mul_ps)
EDGE_BINARY(V, div, V, _mm_div_ps)
EDGE_UNARY(V, sqrt, V, _mm_sqrt_ps)
EDGE_INLINE V fma(V x, V y, V z) {
  return {fma4(x.a, y.a, z.a), fma4(x.b, y.b, z.b), fma4(x.c, y.c, z.c), fma4(x.d, y.d, z.d)};
}
EDGE_INLINE V neg(V x) {
  const __m128 sign = _mm_set1_ps(-0.0f);
  return {_mm_xor_ps(x.a, sign), _mm_xor_ps(x.b, sign), _mm_xor_ps(x.c, sign),
          _mm_xor_ps(x.d, sign)};
}
EDGE_INLINE V abs(V x) {
  const __m128 sign = _mm_set1_ps(-0.0f);
  return {_mm_andnot_ps(sign, x.a), _mm_andnot_ps(sign, x.b), _mm_andnot_ps(sign, x.c),
          _mm_andnot_ps(sign, x.d)};
}
EDGE_BINARY(V, min, V, _mm_min_ps)
EDGE_BINARY(V, max, V, _mm_max_ps)
EDGE_UNARY(V, floor, V, _mm_floor_ps)
EDGE_INLINE __m128 round_even4(__m128 x) {
  return _mm_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
EDGE_UNARY(V, round_even, V, round_even4)
EDGE_BINARY(M, cmp_lt, V, _mm_cmplt_ps)
EDGE_BINARY(M, cmp_le, V, _mm_cmple_ps)
EDGE_BINARY(M, cmp_gt, V, _mm_cmpgt_ps)
EDGE_BINARY(M, cmp_ge, V, _mm_cmpge_ps)
EDGE_BINARY(M, cmp_eq, V, _mm_cmpeq_ps)

// ---- i32

EDGE_UNARY(I, as_i, V, _mm_castps_si128)
EDGE_UNARY(V, as_f, I, _mm_castsi128_ps)
EDGE_UNARY(V, to_float, I, _mm_cvtepi32_ps)
EDGE_UNARY(I, to_int, V, _mm_cvtps_epi32)
EDGE_BINARY(I, add, I, _mm_add_epi32)
EDGE_BINARY(I, sub, I, _mm_sub_epi32)
EDGE_BINARY(I, mul, I, _mm_mullo_epi32)
EDGE_BINARY(I, bit_and, I, _mm_and_si128)
EDGE_BINARY(I, bit_or, I, _mm_or_si128)
EDGE_BINARY(I, bit_xor, I, _mm_xor_si128)
EDGE_BINARY(I, min, I, _mm_min_epi32)
EDGE_BINARY(I, max, I, _mm_max_epi32)
EDGE_SHIFT(shl, _mm_slli_epi32)
EDGE_SHIFT(shr, _mm_srli_epi32)
EDGE_SHIFT(sar, _mm_srai_epi32)
EDGE_UNARY(M, as_mask, I, _mm_castsi128_ps)
EDGE_BINARY(I, gt_lanes, I, _mm_cmpgt_epi32)
EDGE_BINARY(I, eq_lanes, I, _mm_cmpeq_epi32)
EDGE_INLINE M cmp_gt(I x, I y) { return as_mask(gt_lanes(x, y)); }
EDGE_INLINE M cmp_lt(I x, I y) { return as_mask(gt_lanes(y, x)); }
EDGE_INLINE M cmp_eq(I x, I y) { return as_mask(eq_lanes(x, y)); }

// ---- masks

EDGE_INLINE V select(M m, V x, V y) {
  return {_mm_blendv_ps(y.a, x.a, m.a), _mm_blendv_ps(y.b, x.b, m.b), _mm_blendv_ps(y.c, x.c, m.c),
          _mm_blendv_ps(y.d, x.d, m.d)};
}
EDGE_INLINE I select(M m, I x, I y) { return as_i(select(m, as_f(x), as_f(y))); }
EDGE_BINARY(M, mask_and, M, _mm_and_ps)
EDGE_BINARY(M, mask_or, M, _mm_or_ps)
EDGE_INLINE M mask_not(M x) {
  const __m128 ones = _mm_castsi128_ps(_mm_set1_epi32(-1));
  return {_mm_xor_ps(x.a, ones), _mm_xor_ps(x.b, ones), _mm_xor_ps(x.c, ones),
          _mm_xor_ps(x.d, ones)};
}
EDGE_INLINE uint32_t mask_bits(M x) {
  const int lo = _mm_movemask_ps(x.a) | _mm_movemask_ps(x.b) << 4;
  const int hi = _mm_movemask_ps(x.c) | _mm_movemask_ps(x.d) << 4;
  return static_cast<uint32_t>(lo | hi << 8);
}
EDGE_INLINE bool any(M x) {
  return _mm_movemask_ps(_mm_or_ps(_mm_or_ps(x.a, x.b), _mm_or_ps(x.c, x.d))) != 0;
}

// ---- f16 (base/half.h, branchless)

EDGE_INLINE __m128 half_to_float4(__m128i half) {  // 4 u32
  const __m128i magnitude = _mm_and_si128(half, _mm_set1_epi32(0x7fff));
  const __m128i sign = _mm_slli_epi32(_mm_and_si128(half, _mm_set1_epi32(0x8000)), 16);
  const __m128 finite =
      _mm_mul_ps(_mm_castsi128_ps(_mm_slli_epi32(magnitude, 13)), _mm_set1_ps(0x1p112f));
  const __m128i is_special = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7bff));
  const __m128i exponent = _mm_and_si128(is_special, _mm_set1_epi32(0x7f800000));
  return _mm_castsi128_ps(_mm_or_si128(_mm_or_si128(_mm_castps_si128(finite), exponent), sign));
}
EDGE_INLINE __m128i float_to_half4(__m128 x) {  // 4 i32 in 0..65535
  const __m128i bits = _mm_and_si128(_mm_castps_si128(x), _mm_set1_epi32(0x7fffffff));
  const __m128i sign =
      _mm_and_si128(_mm_srli_epi32(_mm_castps_si128(x), 16), _mm_set1_epi32(0x8000));
  const __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 13), _mm_set1_epi32(1));
  const __m128i bias = _mm_set1_epi32(0xfff - (112 << 23));
  const __m128i normal = _mm_srli_epi32(_mm_add_epi32(_mm_add_epi32(bits, odd), bias), 13);
  const __m128 shifted = _mm_add_ps(_mm_castsi128_ps(bits), _mm_set1_ps(0.5f));
  const __m128i subnormal = _mm_sub_epi32(_mm_castps_si128(shifted), _mm_set1_epi32(0x3f000000));
  const __m128i is_small = _mm_cmplt_epi32(bits, _mm_set1_epi32(0x38800000));
  const __m128i is_big = _mm_cmpgt_epi32(bits, _mm_set1_epi32(0x477fffff));
  const __m128i is_nan = _mm_cmpgt_epi32(bits, _mm_set1_epi32(0x7f800000));
  __m128i half = _mm_blendv_epi8(normal, subnormal, is_small);
  half = _mm_blendv_epi8(half, _mm_set1_epi32(0x7c00), is_big);
  half = _mm_blendv_epi8(half, _mm_set1_epi32(0x7e00), is_nan);
  return _mm_or_si128(half, sign);
}
EDGE_INLINE V load_f16(const uint16_t* p) {
  const __m128i lo = load_16_bytes(p);
  const __m128i hi = load_16_bytes(p + 8);
  return {half_to_float4(_mm_cvtepu16_epi32(lo)),
          half_to_float4(_mm_cvtepu16_epi32(_mm_srli_si128(lo, 8))),
          half_to_float4(_mm_cvtepu16_epi32(hi)),
          half_to_float4(_mm_cvtepu16_epi32(_mm_srli_si128(hi, 8)))};
}
EDGE_INLINE void store_f16(uint16_t* p, V x) {
  store_16_bytes(p, _mm_packus_epi32(float_to_half4(x.a), float_to_half4(x.b)));
  store_16_bytes(p + 8, _mm_packus_epi32(float_to_half4(x.c), float_to_half4(x.d)));
}

EDGE_INLINE I add_where(M m, I x, I y) { return add(x, bit_and(as_i(V{m.a, m.b, m.c, m.d}), y)); }

// ---- tables of 16 bytes

struct Table {
  __m128i a;
};
EDGE_INLINE Table table_u8(const uint8_t* p) { return {load_16_bytes(p)}; }
EDGE_INLINE I lookup(Table t, I index) {
  const __m128i rest = _mm_set1_epi32(static_cast<int>(0xffffff00));  // these bytes become 0
  return {_mm_shuffle_epi8(t.a, _mm_or_si128(index.a, rest)),
          _mm_shuffle_epi8(t.a, _mm_or_si128(index.b, rest)),
          _mm_shuffle_epi8(t.a, _mm_or_si128(index.c, rest)),
          _mm_shuffle_epi8(t.a, _mm_or_si128(index.d, rest))};
}

// ---- reductions

EDGE_INLINE float reduce_add(V x) {
  const __m128 r4 = _mm_add_ps(_mm_add_ps(x.a, x.c), _mm_add_ps(x.b, x.d));
  const __m128 r2 = _mm_add_ps(r4, _mm_movehl_ps(r4, r4));
  return _mm_cvtss_f32(_mm_add_ss(r2, _mm_movehdup_ps(r2)));
}
EDGE_INLINE int32_t reduce_max_i(I x) {
  const __m128i r4 = _mm_max_epi32(_mm_max_epi32(x.a, x.b), _mm_max_epi32(x.c, x.d));
  const __m128i r2 = _mm_max_epi32(r4, _mm_shuffle_epi32(r4, 0x4E));
  return _mm_cvtsi128_si32(_mm_max_epi32(r2, _mm_shuffle_epi32(r2, 0xB1)));
}
EDGE_INLINE int32_t reduce_add_i(I x) {
  const __m128i r4 = _mm_add_epi32(_mm_add_epi32(x.a, x.b), _mm_add_epi32(x.c, x.d));
  const __m128i r2 = _mm_add_epi32(r4, _mm_shuffle_epi32(r4, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(r2, _mm_shuffle_epi32(r2, 0xB1)));
}

#undef EDGE_UNARY
#undef EDGE_BINARY
#undef EDGE_SHIFT

}  // namespace edge::x86_sse41
