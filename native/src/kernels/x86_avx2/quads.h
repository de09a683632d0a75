// Dot products of four unsigned bytes and four signed ones in each of 16 lanes, for the keys of
// kernels/kv_format.h, and how much of attention fits the registers of this level.
#pragma once

#include "kernels/x86_avx2/vec16.h"

namespace edge::x86_avx2 {

constexpr int kQuadWords = 2;
constexpr int kScoreVectors = 1;
constexpr int kValueSums = 4;
constexpr int kQuadOffset = 0;

struct Quads {
  __m256i even[2], odd[2];
};
EDGE_INLINE Quads load_quads(const uint8_t* p) {
  const I bytes = load_i(reinterpret_cast<const int32_t*>(p));
  const __m256i low = _mm256_set1_epi16(0xff);
  return {{_mm256_and_si256(bytes.a, low), _mm256_and_si256(bytes.b, low)},
          {_mm256_srli_epi16(bytes.a, 8), _mm256_srli_epi16(bytes.b, 8)}};
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
  const __m256i q0 = _mm256_set1_epi32(words[0]);
  const __m256i q1 = _mm256_set1_epi32(words[1]);
  const __m256i a =
      _mm256_add_epi32(_mm256_madd_epi16(k.even[0], q0), _mm256_madd_epi16(k.odd[0], q1));
  const __m256i b =
      _mm256_add_epi32(_mm256_madd_epi16(k.even[1], q0), _mm256_madd_epi16(k.odd[1], q1));
  return {_mm256_add_epi32(acc.a, a), _mm256_add_epi32(acc.b, b)};
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
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), pack_i16(x));
}

}  // namespace edge::x86_avx2
