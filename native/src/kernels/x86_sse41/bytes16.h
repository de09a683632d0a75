// What vec16.h lacks for integer matmuls: the 64 bytes of an I as bytes and as i16 lanes. Shuffles
// work within 16 bytes.
#pragma once

#include "kernels/x86_sse41/vec16.h"

namespace edge::x86_sse41 {

#define EDGE_BINARY_I(name, op) \
  EDGE_INLINE I name(I x, I y) { return {op(x.a, y.a), op(x.b, y.b), op(x.c, y.c), op(x.d, y.d)}; }

// Pairs of unsigned times signed bytes, added with saturation.
EDGE_BINARY_I(madd_u8_i8, _mm_maddubs_epi16)
EDGE_BINARY_I(madd_i16, _mm_madd_epi16)
EDGE_BINARY_I(add_i16, _mm_add_epi16)
EDGE_BINARY_I(sub_i16, _mm_sub_epi16)
EDGE_BINARY_I(mul_i16, _mm_mullo_epi16)
EDGE_BINARY_I(and_not, _mm_andnot_si128)  // ~x & y
EDGE_BINARY_I(shuffle_bytes, _mm_shuffle_epi8)
#undef EDGE_BINARY_I

EDGE_INLINE I shl_i16(I x, int n) {
  return {_mm_slli_epi16(x.a, n), _mm_slli_epi16(x.b, n), _mm_slli_epi16(x.c, n),
          _mm_slli_epi16(x.d, n)};
}
EDGE_INLINE I shr_i16(I x, int n) {
  return {_mm_srli_epi16(x.a, n), _mm_srli_epi16(x.b, n), _mm_srli_epi16(x.c, n),
          _mm_srli_epi16(x.d, n)};
}
EDGE_INLINE I repeat_16_bytes(const void* p) {
  const __m128i x = load_16_bytes(p);
  return {x, x, x, x};
}
EDGE_INLINE I repeat_8_bytes(const void* p) {
  int64_t bytes;
  memcpy(&bytes, p, sizeof bytes);
  const __m128i x = _mm_set1_epi64x(bytes);
  return {x, x, x, x};
}
EDGE_INLINE I repeat_4_bytes(const void* p) {
  int32_t bytes;
  memcpy(&bytes, p, sizeof bytes);
  return set1_i(bytes);
}
// A sum that is done before what follows: GCC 12 would collect products first, and spill them.
EDGE_INLINE void settle(I& x) {
#if !defined(_MSC_VER) || defined(__clang__)
  __asm__("" : "+x"(x.a), "+x"(x.b), "+x"(x.c), "+x"(x.d));
#endif
}
EDGE_INLINE void prefetch_l1(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}
EDGE_INLINE void prefetch_l2(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
}

}  // namespace edge::x86_sse41
