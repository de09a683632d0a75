// What vec16.h lacks for integer matmuls: the 64 bytes of an I as bytes and as i16 lanes. Shuffles
// work within 16 bytes.
#pragma once

#include "kernels/x86_avx512bw/vec16.h"

namespace edge::x86_avx512bw {

// Pairs of unsigned times signed bytes, added with saturation.
EDGE_INLINE I madd_u8_i8(I x, I y) { return {_mm512_maddubs_epi16(x.a, y.a)}; }
EDGE_INLINE I madd_i16(I x, I y) { return {_mm512_madd_epi16(x.a, y.a)}; }
EDGE_INLINE I add_i16(I x, I y) { return {_mm512_add_epi16(x.a, y.a)}; }
EDGE_INLINE I sub_i16(I x, I y) { return {_mm512_sub_epi16(x.a, y.a)}; }
EDGE_INLINE I mul_i16(I x, I y) { return {_mm512_mullo_epi16(x.a, y.a)}; }
EDGE_INLINE I and_not(I x, I y) { return {_mm512_andnot_si512(x.a, y.a)}; }  // ~x & y
EDGE_INLINE I shuffle_bytes(I x, I index) { return {_mm512_shuffle_epi8(x.a, index.a)}; }
EDGE_INLINE I shl_i16(I x, int n) { return {_mm512_slli_epi16(x.a, static_cast<unsigned>(n))}; }
EDGE_INLINE I shr_i16(I x, int n) { return {_mm512_srli_epi16(x.a, static_cast<unsigned>(n))}; }
EDGE_INLINE I repeat_16_bytes(const void* p) { return {_mm512_broadcast_i32x4(load_16_bytes(p))}; }
EDGE_INLINE I repeat_8_bytes(const void* p) {
  int64_t bytes;
  memcpy(&bytes, p, sizeof bytes);
  return {_mm512_set1_epi64(bytes)};
}
EDGE_INLINE I repeat_4_bytes(const void* p) {
  int32_t bytes;
  memcpy(&bytes, p, sizeof bytes);
  return set1_i(bytes);
}
// A sum that is done before what follows: GCC 12 would collect products first, and spill them.
EDGE_INLINE void settle(I& x) {
#if !defined(_MSC_VER) || defined(__clang__)
  __asm__("" : "+v"(x.a));
#endif
}
EDGE_INLINE void prefetch_l1(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}
EDGE_INLINE void prefetch_l2(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
}

}  // namespace edge::x86_avx512bw
