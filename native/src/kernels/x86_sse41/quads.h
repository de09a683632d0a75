// Dot products of four unsigned bytes and four signed ones in each of 16 lanes, for the keys of
// kernels/kv_format.h, and how much of attention fits the registers of this level.
#pragma once

#include "kernels/x86_sse41/vec16.h"

namespace edge::x86_sse41 {

constexpr int kQuadWords = 2;
constexpr int kScoreVectors = 1;
constexpr int kValueSums = 4;
constexpr int kQuadOffset = 0;

struct Quads {
  I even, odd;
};
EDGE_INLINE Quads load_quads(const uint8_t* p) {
  const I bytes = load_i(reinterpret_cast<const int32_t*>(p));
  const __m128i low = _mm_set1_epi16(0xff);
  return {{_mm_and_si128(bytes.a, low), _mm_and_si128(bytes.b, low), _mm_and_si128(bytes.c, low),
           _mm_and_si128(bytes.d, low)},
          {_mm_srli_epi16(bytes.a, 8), _mm_srli_epi16(bytes.b, 8), _mm_srli_epi16(bytes.c, 8),
           _mm_srli_epi16(bytes.d, 8)}};
}
// The even and the odd bytes of a quad, as pairs of i16.
EDGE_INLINE void prepare_quad(const int8_t* q, int32_t* words) {
  for (int odd = 0; odd < 2; ++odd) {
    const auto low = static_cast<uint16_t>(q[odd]);
    const auto high = static_cast<uint16_t>(q[2 + odd]);
    words[odd] = static_cast<int32_t>(low | static_cast<uint32_t>(high) << 16);
  }
}
EDGE_INLINE __m128i two_pairs(__m128i even, __m128i odd, __m128i q0, __m128i q1) {
  return _mm_add_epi32(_mm_madd_epi16(even, q0), _mm_madd_epi16(odd, q1));
}
EDGE_INLINE I dot(I acc, const Quads& k, const int32_t* words) {
  const __m128i q0 = _mm_set1_epi32(words[0]);
  const __m128i q1 = _mm_set1_epi32(words[1]);
  return add(acc, I{two_pairs(k.even.a, k.odd.a, q0, q1), two_pairs(k.even.b, k.odd.b, q0, q1),
                    two_pairs(k.even.c, k.odd.c, q0, q1), two_pairs(k.even.d, k.odd.d, q0, q1)});
}

constexpr int kWordOffset = 0;

using Words = Quads;
EDGE_INLINE Words load_words(const uint8_t* p) { return load_quads(p); }
EDGE_INLINE I dot_words(I acc, const Words& v, const int16_t* w) {
  int32_t pairs[2];
  memcpy(pairs, w, sizeof pairs);
  return dot(acc, v, pairs);
}
EDGE_INLINE void store_i16(int16_t* p, I x) {
  store_16_bytes(p, _mm_packs_epi32(x.a, x.b));
  store_16_bytes(p + 8, _mm_packs_epi32(x.c, x.d));
}

}  // namespace edge::x86_sse41
