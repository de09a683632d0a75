#include "kernels/attention.h"

#include "base/inline.h"
#include "kernels/arm_neon/quads.h"

namespace edge::arm_neon {
// clang-format off: attention is written on math
#include "kernels/generic/math.inl.h"
#include "kernels/generic/attention.inl.h"
#include "kernels/generic/kv_store.inl.h"
// clang-format on
}  // namespace edge::arm_neon

namespace edge {

const AttentionKernels kAttention_arm_neon = {
    arm_neon::segment,   arm_neon::merge,       arm_neon::finish,  arm_neon::quantize_query,
    arm_neon::store_key, arm_neon::store_value, arm_neon::load_key};

}  // namespace edge
