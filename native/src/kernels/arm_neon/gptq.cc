// The search of GPTQ with NEON.
#include "kernels/arm_neon/vec16.h"
#include "kernels/gptq_kernels.h"
#include "quant/tiles.h"
#include "tensor/tensor.h"

namespace edge {
namespace arm_neon {
namespace {
#include "kernels/generic/gptq.inl.h"
}  // namespace
}  // namespace arm_neon

const GptqKernels kGptq_arm_neon = arm_neon::kGptqTable;

}  // namespace edge
