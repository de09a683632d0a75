// 16 virtual lanes in two ymm. scalar/vec16.h defines and documents the operations.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "base/inline.h"

namespace edge::x86_avx2 {

struct V {  // a: lanes 0..7, b: lanes 8..15
  __m256 a, b;
};
struct I {
  __m256i a, b;
};
struct M {
  __m256 a, b;
};

#define EDGE_UNARY(R, name, T, op) \
  EDGE_INLINE R name(T x) { return {op(x.a), op(x.b)}; }
#define EDGE_BINARY(R, name, T, op) \
  EDGE_INLINE R name(T x, T y) { return {op(x.a, y.a), op(x.b, y.b)}; }
#define EDGE_COMPARE(name, predicate)                                                \
  EDGE_INLINE M name(V x, V y) {                                                     \
    return {_mm256_cmp_ps(x.a, y.a, predicate), _mm256_cmp_ps(x.b, y.b, predicate)}; \
  }

EDGE_INLINE I first_lanes(int n) {
  const __m256i count = _mm256_set1_epi32(n);
  return {_mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
          _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}

// ---- memory

EDGE_INLINE V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
EDGE_INLINE void store(float* p, V x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
EDGE_INLINE V load_n(const float* p, int n) {
  const I m = first_lanes(n);
  return {_mm256_maskload_ps(p, m.a), _mm256_maskload_ps(p + 8, m.b)};
}
EDGE_INLINE void store_n(float* p, V x, int n) {
  const I m = first_lanes(n);
  _mm256_maskstore_ps(p, m.a, x.a);
  _mm256_maskstore_ps(p + 8, m.b, x.b);
}
EDGE_INLINE I load_i(const int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
EDGE_INLINE void store_i(int32_t* p, I x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), x.b);
}
EDGE_INLINE __m128i load_16_bytes(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
EDGE_INLINE I load_u8(const uint8_t* p) {
  const __m128i bytes = load_16_bytes(p);
  return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}
EDGE_INLINE I load_i8(const int8_t* p) {
  const __m128i bytes = load_16_bytes(p);
  return {_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
}
// 16 i32 to 16 i16 in order; lanes fit.
EDGE_INLINE __m256i pack_i16(I x) {
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xD8);
}
EDGE_INLINE void store_i8(int8_t* p, I x) {
  const __m256i w = pack_i16(x);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
}
EDGE_INLINE void store_u8(uint8_t* p, I x) {
  const __m256i w = pack_i16(x);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packus_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
}
EDGE_INLINE void store_i16(int16_t* p, I x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), pack_i16(x));
}
EDGE_INLINE V load_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(load_16_bytes(p)), _mm256_cvtph_ps(load_16_bytes(p + 8))};
}
EDGE_INLINE void store_f16(uint16_t* p, V x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8),
                   _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

EDGE_INLINE V set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
EDGE_INLINE V zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
EDGE_INLINE I set1_i(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
EDGE_INLINE I zero_i() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }

// ---- f32

EDGE_BINARY(V, add, V, _mm256_add_ps)
EDGE_BINARY(V, sub, V, _mm256_sub_ps)
EDGE_BINARY(V, mul, V, _mm256_mul_ps)
EDGE_BINARY(V, div, V, _mm256_div_ps)
EDGE_UNARY(V, sqrt, V, _mm256_sqrt_ps)
EDGE_INLINE V fma(V x, V y, V z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
EDGE_INLINE V neg(V x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(x.a, sign), _mm256_xor_ps(x.b, sign)};
}
EDGE_INLINE V abs(V x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
EDGE_BINARY(V, min, V, _mm256_min_ps)
EDGE_BINARY(V, max, V, _mm256_max_ps)
EDGE_UNARY(V, floor, V, _mm256_floor_ps)
EDGE_INLINE V round_even(V x) {
  return {_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
EDGE_COMPARE(cmp_lt, _CMP_LT_OQ)
EDGE_COMPARE(cmp_le, _CMP_LE_OQ)
EDGE_COMPARE(cmp_gt, _CMP_GT_OQ)
EDGE_COMPARE(cmp_ge, _CMP_GE_OQ)
EDGE_COMPARE(cmp_eq, _CMP_EQ_OQ)

// ---- i32

EDGE_UNARY(I, as_i, V, _mm256_castps_si256)
EDGE_UNARY(V, as_f, I, _mm256_castsi256_ps)
EDGE_UNARY(V, to_float, I, _mm256_cvtepi32_ps)
EDGE_UNARY(I, to_int, V, _mm256_cvtps_epi32)
EDGE_BINARY(I, add, I, _mm256_add_epi32)
EDGE_BINARY(I, sub, I, _mm256_sub_epi32)
EDGE_BINARY(I, mul, I, _mm256_mullo_epi32)
EDGE_BINARY(I, bit_and, I, _mm256_and_si256)
EDGE_BINARY(I, bit_or, I, _mm256_or_si256)
EDGE_BINARY(I, bit_xor, I, _mm256_xor_si256)
EDGE_BINARY(I, min, I, _mm256_min_epi32)
EDGE_BINARY(I, max, I, _mm256_max_epi32)
EDGE_INLINE I shl(I x, int n) { return {_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n)}; }
EDGE_INLINE I shr(I x, int n) { return {_mm256_srli_epi32(x.a, n), _mm256_srli_epi32(x.b, n)}; }
EDGE_INLINE I sar(I x, int n) { return {_mm256_srai_epi32(x.a, n), _mm256_srai_epi32(x.b, n)}; }
EDGE_INLINE M as_mask(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
EDGE_INLINE M cmp_gt(I x, I y) {
  return as_mask({_mm256_cmpgt_epi32(x.a, y.a), _mm256_cmpgt_epi32(x.b, y.b)});
}
EDGE_INLINE M cmp_lt(I x, I y) { return cmp_gt(y, x); }
EDGE_INLINE M cmp_eq(I x, I y) {
  return as_mask({_mm256_cmpeq_epi32(x.a, y.a), _mm256_cmpeq_epi32(x.b, y.b)});
}

// ---- masks

EDGE_INLINE V select(M m, V x, V y) {
  return {_mm256_blendv_ps(y.a, x.a, m.a), _mm256_blendv_ps(y.b, x.b, m.b)};
}
EDGE_INLINE I select(M m, I x, I y) { return as_i(select(m, as_f(x), as_f(y))); }
EDGE_BINARY(M, mask_and, M, _mm256_and_ps)
EDGE_BINARY(M, mask_or, M, _mm256_or_ps)
EDGE_INLINE M mask_not(M x) {
  const __m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
  return {_mm256_xor_ps(x.a, ones), _mm256_xor_ps(x.b, ones)};
}
EDGE_INLINE uint32_t mask_bits(M x) {
  return static_cast<uint32_t>(_mm256_movemask_ps(x.a)) |
         static_cast<uint32_t>(_mm256_movemask_ps(x.b)) << 8;
}
EDGE_INLINE bool any(M x) { return _mm256_movemask_ps(_mm256_or_ps(x.a, x.b)) != 0; }

EDGE_INLINE I add_where(M m, I x, I y) { return add(x, bit_and(as_i(V{m.a, m.b}), y)); }

// ---- tables of 16 bytes

struct Table {
  __m256i a;
};
EDGE_INLINE Table table_u8(const uint8_t* p) {
  return {_mm256_broadcastsi128_si256(load_16_bytes(p))};
}
EDGE_INLINE I lookup(Table t, I index) {
  const __m256i rest = _mm256_set1_epi32(static_cast<int>(0xffffff00));  // these bytes become 0
  return {_mm256_shuffle_epi8(t.a, _mm256_or_si256(index.a, rest)),
          _mm256_shuffle_epi8(t.a, _mm256_or_si256(index.b, rest))};
}

// ---- reductions

EDGE_INLINE float reduce_add(V x) {
  const __m256 r8 = _mm256_add_ps(x.a, x.b);
  const __m128 r4 = _mm_add_ps(_mm256_castps256_ps128(r8), _mm256_extractf128_ps(r8, 1));
  const __m128 r2 = _mm_add_ps(r4, _mm_movehl_ps(r4, r4));
  return _mm_cvtss_f32(_mm_add_ss(r2, _mm_movehdup_ps(r2)));
}
EDGE_INLINE int32_t reduce_max_i(I x) {
  const __m256i r8 = _mm256_max_epi32(x.a, x.b);
  const __m128i r4 = _mm_max_epi32(_mm256_castsi256_si128(r8), _mm256_extracti128_si256(r8, 1));
  const __m128i r2 = _mm_max_epi32(r4, _mm_shuffle_epi32(r4, 0x4E));
  return _mm_cvtsi128_si32(_mm_max_epi32(r2, _mm_shuffle_epi32(r2, 0xB1)));
}
EDGE_INLINE int32_t reduce_add_i(I x) {
  const __m256i r8 = _mm256_add_epi32(x.a, x.b);
  const __m128i r4 = _mm_add_epi32(_mm256_castsi256_si128(r8), _mm256_extracti128_si256(r8, 1));
  const __m128i r2 = _mm_add_epi32(r4, _mm_shuffle_epi32(r4, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(r2, _mm_shuffle_epi32(r2, 0xB1)));
}

#undef EDGE_UNARY
#undef EDGE_BINARY
#undef EDGE_COMPARE

}  // namespace edge::x86_avx2
