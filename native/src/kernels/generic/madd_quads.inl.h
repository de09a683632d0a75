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
// The two pairs of a word stand at `pairs`.
EDGE_INLINE I add_products(I acc, const Words& x, const void* pairs) {
  const I even = madd_i16(x.even, repeat_4_bytes(pairs));
  const I odd = madd_i16(x.odd, repeat_4_bytes(static_cast<const char*>(pairs) + 4));
  return add(acc, add(even, odd));
}
EDGE_INLINE I dot(I acc, const Quads& k, const int32_t* words) {
  return add_products(acc, k, words);
}
EDGE_INLINE I dot_words(I acc, const Words& v, const int16_t* w) { return add_products(acc, v, w); }
