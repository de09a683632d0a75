// The element-wise kernels with NEON.
#include "kernels/elementwise.h"

#include "base/exact_math.h"
#include "kernels/arm_neon/vec16.h"

namespace edge {
namespace arm_neon {
namespace {
#include "kernels/generic/elementwise.inl.h"
}  // namespace
}  // namespace arm_neon

const ElementwiseKernels kElementwise_arm_neon = arm_neon::kTable;

}  // namespace edge
