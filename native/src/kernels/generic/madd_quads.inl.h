// Products of bytes for levels that multiply pairs of i16, on bytes16.h, included inside the
// namespace. scalar/quads.h says what the operations do.
#pragma once

#include "kernels/generic/value_words.inl.h"

constexpr int kQuadWords = 2;
constexpr int kQuadOffset = 0;

using Quads = Words;
EDGE_INLINE Quads load_quads(const uint8_t* p) { return load_words(p); }
// The even and the odd bytes of a quad, as pairs of i16.
EDGE_INLINE void prepare_quad(const int8_t* q, int32_t* words) {
  for (int odd = 0; odd < 2; ++odd) {
    const auto low = static_cast<uint16_t>(q[odd]);
    const auto high = static_cast<uint16_t>(q[2 + odd]);
    words[odd] = static_cast<int32_t>(low | static_cast<uint32_t>(high) << 16);
  }
}
EDGE_INLINE I dot(I acc, const Quads& k, const int32_t* words) {
  const I even = madd_i16(k.even, set1_i(words[0]));
  return add(acc, add(even, madd_i16(k.odd, set1_i(words[1]))));
}
EDGE_INLINE I dot_words(I acc, const Words& v, const int16_t* w) {
  int32_t pairs[2];
  memcpy(pairs, w, sizeof pairs);
  return dot(acc, v, pairs);
}
