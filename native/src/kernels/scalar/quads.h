// Dot products of four unsigned bytes and four signed ones in each of 16 lanes, for the keys of
// kernels/kv_format.h, and how much of attention fits the registers of this level.
#pragma once

#include "kernels/scalar/vec16.h"

namespace edge::scalar {

constexpr int kQuadWords = 1;     // i32 of a prepared quad of a query
constexpr int kScoreVectors = 2;  // of 16 positions, scored at once for four queries
constexpr int kValueSums = 16;    // V that weighted values are summed in
constexpr int kQuadOffset = 0;    // what load_quads() takes off each byte

struct Quads {
  uint8_t bytes[64];
};
EDGE_INLINE Quads load_quads(const uint8_t* p) {
  Quads k;
  memcpy(k.bytes, p, sizeof k.bytes);
  return k;
}
// Four bytes of a query as dot() takes them.
EDGE_INLINE void prepare_quad(const int8_t* q, int32_t* words) { memcpy(words, q, 4); }
// acc + the sum of four products in each lane, exact.
EDGE_INLINE I dot(I acc, const Quads& k, const int32_t* words) {
  int8_t q[4];
  memcpy(q, words, sizeof q);
  for (int l = 0; l < 16; ++l) {
    for (int i = 0; i < 4; ++i) acc.v[l] += int{k.bytes[4 * l + i]} * int{q[i]};
  }
  return acc;
}

// Values: four positions of 16 channels, whose bytes are positions 0, 2, 1 and 3.
struct Words {
  uint8_t bytes[64];
};
EDGE_INLINE Words load_words(const uint8_t* p) {
  Words v;
  memcpy(v.bytes, p, sizeof v.bytes);
  return v;
}
// acc + the sum of four products with i16 weights in each lane, exact.
EDGE_INLINE I dot_words(I acc, const Words& v, const int16_t* w) {
  for (int l = 0; l < 16; ++l) {
    const uint8_t* b = v.bytes + 4 * l;
    acc.v[l] += int{b[0]} * w[0] + int{b[2]} * w[1] + int{b[1]} * w[2] + int{b[3]} * w[3];
  }
  return acc;
}

}  // namespace edge::scalar
