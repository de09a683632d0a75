// 16 virtual lanes in one zmm. scalar/vec16.h defines and documents the operations.
#pragma once

// GCC 12 initialises the "undefined" registers of its AVX-512 intrinsics with themselves and warns.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

#include <stdint.h>
#include <string.h>

#include "base/inline.h"

namespace edge::x86_avx512bw {

struct V {
  __m512 a;
};
struct I {
  __m512i a;
};
struct M {
  __mmask16 a;
};

EDGE_INLINE M first_lanes(int n) { return {static_cast<__mmask16>((1u << n) - 1u)}; }

// ---- memory

EDGE_INLINE V load(const float* p) { return {_mm512_loadu_ps(p)}; }
EDGE_INLINE void store(float* p, V x) { _mm512_storeu_ps(p, x.a); }
EDGE_INLINE V load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n).a, p)}; }
EDGE_INLINE void store_n(float* p, V x, int n) { _mm512_mask_storeu_ps(p, first_lanes(n).a, x.a); }
EDGE_INLINE I load_i(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
EDGE_INLINE void store_i(int32_t* p, I x) { _mm512_storeu_si512(p, x.a); }
EDGE_INLINE __m128i load_16_bytes(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
EDGE_INLINE I load_u8(const uint8_t* p) { return {_mm512_cvtepu8_epi32(load_16_bytes(p))}; }
EDGE_INLINE I load_i8(const int8_t* p) { return {_mm512_cvtepi8_epi32(load_16_bytes(p))}; }
EDGE_INLINE void store_i8(int8_t* p, I x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x.a));
}
EDGE_INLINE void store_u8(uint8_t* p, I x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x.a));
}
EDGE_INLINE void store_i16(int16_t* p, I x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x.a));
}
EDGE_INLINE V load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
EDGE_INLINE void store_f16(uint16_t* p, V x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

EDGE_INLINE V set1(float x) { return {_mm512_set1_ps(x)}; }
EDGE_INLINE V zero() { return {_mm512_setzero_ps()}; }
EDGE_INLINE I set1_i(int32_t x) { return {_mm512_set1_epi32(x)}; }
EDGE_INLINE I zero_i() { return {_mm512_setzero_si512()}; }

// ---- f32

EDGE_INLINE V add(V x, V y) { return {_mm512_add_ps(x.a, y.a)}; }
EDGE_INLINE V sub(V x, V y) { return {_mm512_sub_ps(x.a, y.a)}; }
EDGE_INLINE V mul(V x, V y) { return {_mm512_mul_ps(x.a, y.a)}; }
EDGE_INLINE V div(V x, V y) { return {_mm512_div_ps(x.a, y.a)}; }
EDGE_INLINE V sqrt(V x) { return {_mm512_sqrt_ps(x.a)}; }
EDGE_INLINE V fma(V x, V y, V z) { return {_mm512_fmadd_ps(x.a, y.a, z.a)}; }
EDGE_INLINE V neg(V x) { return {_mm512_xor_ps(x.a, _mm512_set1_ps(-0.0f))}; }
EDGE_INLINE V abs(V x) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), x.a)}; }
EDGE_INLINE V min(V x, V y) { return {_mm512_min_ps(x.a, y.a)}; }
EDGE_INLINE V max(V x, V y) { return {_mm512_max_ps(x.a, y.a)}; }
EDGE_INLINE V floor(V x) {
  return {_mm512_roundscale_ps(x.a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
}
EDGE_INLINE V round_even(V x) {
  return {_mm512_roundscale_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
EDGE_INLINE M cmp_lt(V x, V y) { return {_mm512_cmp_ps_mask(x.a, y.a, _CMP_LT_OQ)}; }
EDGE_INLINE M cmp_le(V x, V y) { return {_mm512_cmp_ps_mask(x.a, y.a, _CMP_LE_OQ)}; }
EDGE_INLINE M cmp_gt(V x, V y) { return {_mm512_cmp_ps_mask(x.a, y.a, _CMP_GT_OQ)}; }
EDGE_INLINE M cmp_ge(V x, V y) { return {_mm512_cmp_ps_mask(x.a, y.a, _CMP_GE_OQ)}; }
EDGE_INLINE M cmp_eq(V x, V y) { return {_mm512_cmp_ps_mask(x.a, y.a, _CMP_EQ_OQ)}; }

// ---- i32

EDGE_INLINE I as_i(V x) { return {_mm512_castps_si512(x.a)}; }
EDGE_INLINE V as_f(I x) { return {_mm512_castsi512_ps(x.a)}; }
EDGE_INLINE V to_float(I x) { return {_mm512_cvtepi32_ps(x.a)}; }
EDGE_INLINE I to_int(V x) { return {_mm512_cvtps_epi32(x.a)}; }
EDGE_INLINE I add(I x, I y) { return {_mm512_add_epi32(x.a, y.a)}; }
EDGE_INLINE I sub(I x, I y) { return {_mm512_sub_epi32(x.a, y.a)}; }
EDGE_INLINE I mul(I x, I y) { return {_mm512_mullo_epi32(x.a, y.a)}; }
EDGE_INLINE I bit_and(I x, I y) { return {_mm512_and_si512(x.a, y.a)}; }
EDGE_INLINE I bit_or(I x, I y) { return {_mm512_or_si512(x.a, y.a)}; }
EDGE_INLINE I bit_xor(I x, I y) { return {_mm512_xor_si512(x.a, y.a)}; }
EDGE_INLINE I min(I x, I y) { return {_mm512_min_epi32(x.a, y.a)}; }
EDGE_INLINE I max(I x, I y) { return {_mm512_max_epi32(x.a, y.a)}; }
EDGE_INLINE I shl(I x, int n) { return {_mm512_slli_epi32(x.a, static_cast<unsigned>(n))}; }
EDGE_INLINE I shr(I x, int n) { return {_mm512_srli_epi32(x.a, static_cast<unsigned>(n))}; }
EDGE_INLINE I sar(I x, int n) { return {_mm512_srai_epi32(x.a, static_cast<unsigned>(n))}; }
EDGE_INLINE M cmp_lt(I x, I y) { return {_mm512_cmplt_epi32_mask(x.a, y.a)}; }
EDGE_INLINE M cmp_gt(I x, I y) { return {_mm512_cmpgt_epi32_mask(x.a, y.a)}; }
EDGE_INLINE M cmp_eq(I x, I y) { return {_mm512_cmpeq_epi32_mask(x.a, y.a)}; }

// ---- masks

EDGE_INLINE V select(M m, V x, V y) { return {_mm512_mask_blend_ps(m.a, y.a, x.a)}; }
EDGE_INLINE I select(M m, I x, I y) { return {_mm512_mask_blend_epi32(m.a, y.a, x.a)}; }
EDGE_INLINE M mask_and(M x, M y) { return {static_cast<__mmask16>(x.a & y.a)}; }
EDGE_INLINE M mask_or(M x, M y) { return {static_cast<__mmask16>(x.a | y.a)}; }
EDGE_INLINE M mask_not(M x) { return {static_cast<__mmask16>(~x.a)}; }
EDGE_INLINE uint32_t mask_bits(M x) { return x.a; }
EDGE_INLINE bool any(M x) { return x.a != 0; }

EDGE_INLINE I add_where(M m, I x, I y) { return {_mm512_mask_add_epi32(x.a, m.a, x.a, y.a)}; }

// ---- tables of 16 bytes

struct Table {
  __m512i a;
};
EDGE_INLINE Table table_u8(const uint8_t* p) { return {_mm512_cvtepu8_epi32(load_16_bytes(p))}; }
EDGE_INLINE I lookup(Table t, I index) { return {_mm512_permutexvar_epi32(index.a, t.a)}; }

// ---- reductions

EDGE_INLINE float reduce_add(V x) {
  const __m256 hi8 = _mm512_extractf32x8_ps(x.a, 1);
  const __m256 r8 = _mm256_add_ps(_mm512_castps512_ps256(x.a), hi8);
  const __m128 r4 = _mm_add_ps(_mm256_castps256_ps128(r8), _mm256_extractf128_ps(r8, 1));
  const __m128 r2 = _mm_add_ps(r4, _mm_movehl_ps(r4, r4));
  return _mm_cvtss_f32(_mm_add_ss(r2, _mm_movehdup_ps(r2)));
}
EDGE_INLINE int32_t reduce_max_i(I x) { return _mm512_reduce_max_epi32(x.a); }
EDGE_INLINE int32_t reduce_add_i(I x) { return _mm512_reduce_add_epi32(x.a); }

}  // namespace edge::x86_avx512bw
