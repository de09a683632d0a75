#include "kernels/attention.h"

#include "base/inline.h"
#include "kernels/arm_neon/quads.h"

namespace edge::arm_neon_dot {

using namespace arm_neon;

EDGE_INLINE I dot(I acc, const Quads& k, const int32_t* words) {
  const int8x16_t q = vreinterpretq_s8_s32(vdupq_n_s32(words[0]));
  return {vdotq_s32(acc.a, k.a, q), vdotq_s32(acc.b, k.b, q), vdotq_s32(acc.c, k.c, q),
          vdotq_s32(acc.d, k.d, q)};
}

// clang-format off: attention is written on math
#include "kernels/generic/math.inl.h"
#include "kernels/generic/attention.inl.h"
#include "kernels/generic/kv_store.inl.h"
// clang-format on
}  // namespace edge::arm_neon_dot

namespace edge {

const AttentionKernels kAttention_arm_neon_dot = {
    arm_neon_dot::segment,        arm_neon_dot::merge,     arm_neon_dot::finish,
    arm_neon_dot::quantize_query, arm_neon_dot::store_key, arm_neon_dot::store_value};

}  // namespace edge
