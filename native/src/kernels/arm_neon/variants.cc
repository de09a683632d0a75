// The variants' row kernels with NEON.
#include "kernels/variants.h"

#include "kernels/arm_neon/vec16.h"

namespace edge {
namespace arm_neon {
namespace {
#include "kernels/generic/variants.inl.h"
}  // namespace
}  // namespace arm_neon

const VariantKernels kVariants_arm_neon = arm_neon::kTable;

}  // namespace edge
