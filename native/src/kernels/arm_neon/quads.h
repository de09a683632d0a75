// Dot products of four unsigned bytes and four signed ones in each of 16 lanes, for the keys of
// kernels/kv_format.h, and how much of attention fits the registers of this level.
#pragma once

#include "kernels/arm_neon/words.h"

namespace edge::arm_neon {

constexpr int kQuadWords = 1;
constexpr int kScoreVectors = 1;
constexpr int kValueSums = 4;
constexpr int kQuadOffset = 128;

struct Quads {
  int8x16_t a, b, c, d;
};
EDGE_INLINE int8x16_t signed_bytes(const uint8_t* p) {
  return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(0x80)));
}
EDGE_INLINE Quads load_quads(const uint8_t* p) {
  return {signed_bytes(p), signed_bytes(p + 16), signed_bytes(p + 32), signed_bytes(p + 48)};
}
EDGE_INLINE void prepare_quad(const int8_t* q, int32_t* words) { memcpy(words, q, 4); }
// Pairs of products in i16: 2 * 128 * 127 < 2^15.
EDGE_INLINE int32x4_t dot4(int32x4_t acc, int8x16_t k, int8x8_t q) {
  const int16x8_t low = vmull_s8(vget_low_s8(k), q);
  const int16x8_t high = vmull_s8(vget_high_s8(k), q);
  return vpadalq_s16(acc, vpaddq_s16(low, high));
}
EDGE_INLINE I dot(I acc, const Quads& k, const int32_t* words) {
  const int8x8_t q = vreinterpret_s8_s32(vdup_n_s32(words[0]));
  return {dot4(acc.a, k.a, q), dot4(acc.b, k.b, q), dot4(acc.c, k.c, q), dot4(acc.d, k.d, q)};
}

}  // namespace edge::arm_neon
