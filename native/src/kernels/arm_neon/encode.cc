// The weight encoders with NEON.
#include "kernels/arm_neon/vec16.h"
#include "kernels/encode_kernels.h"
#include "quant/tiles.h"
#include "tensor/tensor.h"

namespace edge {
namespace arm_neon {
namespace {
#include "kernels/generic/encode.inl.h"
}  // namespace
}  // namespace arm_neon

const EncodeKernels kEncode_arm_neon = arm_neon::kTable;

}  // namespace edge
