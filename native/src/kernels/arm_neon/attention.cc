#include "kernels/attention.h"

#include "base/inline.h"
#include "kernels/arm_neon/vec16.h"

namespace edge::arm_neon {
// clang-format off: attention is written on math
#include "kernels/generic/math.inl.h"
#include "kernels/generic/attention.inl.h"
// clang-format on
}  // namespace edge::arm_neon

namespace edge {

const AttentionKernels kAttention_arm_neon = {arm_neon::segment, arm_neon::merge, arm_neon::finish};

}  // namespace edge
