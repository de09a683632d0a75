// Bytes of keys and values (kernels/kv_format.h) as all levels of ARM multiply them, and how much
// of attention fits their registers. dot() is each level's own.
#pragma once

#include "kernels/arm_neon/vec16.h"

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

// Four positions of 16 channels.
struct Words {
  int16x8_t low[4], high[4];
};
EDGE_INLINE Words load_words(const uint8_t* p) {
  const uint8x16x4_t bytes = vld4q_u8(p);
  const uint8x16_t in_order[4] = {bytes.val[0], bytes.val[2], bytes.val[1], bytes.val[3]};
  Words v;
  for (int i = 0; i < 4; ++i) {
    v.low[i] = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(in_order[i])));
    v.high[i] = vreinterpretq_s16_u16(vmovl_high_u8(in_order[i]));
  }
  return v;
}
EDGE_INLINE I dot_words(I acc, const Words& v, const int16_t* w) {
  for (int i = 0; i < 4; ++i) {
    acc.a = vmlal_n_s16(acc.a, vget_low_s16(v.low[i]), w[i]);
    acc.b = vmlal_high_n_s16(acc.b, v.low[i], w[i]);
    acc.c = vmlal_n_s16(acc.c, vget_low_s16(v.high[i]), w[i]);
    acc.d = vmlal_high_n_s16(acc.d, v.high[i], w[i]);
  }
  return acc;
}

}  // namespace edge::arm_neon
