#include "kernels/attention.h"

#include "base/inline.h"
#include "kernels/arm_neon/quads.h"

namespace edge::arm_neon {

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

// clang-format off: attention is written on math
#include "kernels/generic/math.inl.h"
#include "kernels/generic/attention.inl.h"
#include "kernels/generic/kv_store.inl.h"
// clang-format on
}  // namespace edge::arm_neon

namespace edge {

const AttentionKernels kAttention_arm_neon = {arm_neon::segment,   arm_neon::merge,
                                              arm_neon::finish,    arm_neon::quantize_query,
                                              arm_neon::store_key, arm_neon::store_value};

}  // namespace edge
