// The search of GPTQ in plain C++.
#include "kernels/gptq_kernels.h"
#include "kernels/scalar/vec16.h"
#include "quant/tiles.h"
#include "tensor/tensor.h"

namespace edge {
namespace scalar {
namespace {
#include "kernels/generic/gptq.inl.h"
}  // namespace
}  // namespace scalar

const GptqKernels kGptq_scalar = scalar::kGptqTable;

}  // namespace edge
