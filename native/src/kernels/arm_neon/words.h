// Values of kernels/kv_format.h times i16 weights, for all levels of ARM.
#pragma once

#include "kernels/arm_neon/vec16.h"

namespace edge::arm_neon {

constexpr int kWordOffset = 128;

// Four positions of 16 channels, signed.
struct Words {
  int16x8_t low[4], high[4];
};
EDGE_INLINE Words load_words(const uint8_t* p) {
  const uint8x16x4_t bytes = vld4q_u8(p);
  const uint8x16_t in_order[4] = {bytes.val[0], bytes.val[2], bytes.val[1], bytes.val[3]};
  Words v;
  for (int i = 0; i < 4; ++i) {
    const int8x16_t x = vreinterpretq_s8_u8(veorq_u8(in_order[i], vdupq_n_u8(0x80)));
    v.low[i] = vmovl_s8(vget_low_s8(x));
    v.high[i] = vmovl_high_s8(x);
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
EDGE_INLINE void store_i16(int16_t* p, I x) {
  vst1q_s16(p, vmovn_high_s32(vmovn_s32(x.a), x.b));
  vst1q_s16(p + 8, vmovn_high_s32(vmovn_s32(x.c), x.d));
}

}  // namespace edge::arm_neon
