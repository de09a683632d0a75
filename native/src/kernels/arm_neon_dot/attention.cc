#include "kernels/attention.h"

#include "base/inline.h"
#include "kernels/arm_neon/words.h"

namespace edge::arm_neon_dot {

using namespace arm_neon;

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
    arm_neon_dot::quantize_query, arm_neon_dot::store_key, arm_neon_dot::store_value,
    arm_neon_dot::load_key};

}  // namespace edge
