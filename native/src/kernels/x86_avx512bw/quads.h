// Dot products of four unsigned bytes and four signed ones in each of 16 lanes, for the keys of
// kernels/kv_format.h, and how much of attention fits the registers of this level.
#pragma once

#include "kernels/x86_avx512bw/vec16.h"

namespace edge::x86_avx512bw {

constexpr int kQuadWords = 2;
constexpr int kScoreVectors = 2;
constexpr int kValueSums = 16;
constexpr int kQuadOffset = 0;

struct Quads {
  __m512i even, odd;
};
EDGE_INLINE Quads load_quads(const uint8_t* p) {
  const __m512i bytes = _mm512_loadu_si512(p);
  return {_mm512_and_si512(bytes, _mm512_set1_epi16(0xff)), _mm512_srli_epi16(bytes, 8)};
}
// The even and the odd bytes of a quad, as pairs of i16.
EDGE_INLINE void prepare_quad(const int8_t* q, int32_t* words) {
  for (int odd = 0; odd < 2; ++odd) {
    const auto low = static_cast<uint16_t>(q[odd]);
    const auto high = static_cast<uint16_t>(q[2 + odd]);
    words[odd] = static_cast<int32_t>(low | static_cast<uint32_t>(high) << 16);
  }
}
EDGE_INLINE I dot(I acc, const Quads& k, const int32_t* words) {
  const __m512i even = _mm512_madd_epi16(k.even, _mm512_set1_epi32(words[0]));
  const __m512i odd = _mm512_madd_epi16(k.odd, _mm512_set1_epi32(words[1]));
  return {_mm512_add_epi32(acc.a, _mm512_add_epi32(even, odd))};
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
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x.a));
}

}  // namespace edge::x86_avx512bw
