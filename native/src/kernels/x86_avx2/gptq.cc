// The search of GPTQ with AVX2.
#include "kernels/gptq_kernels.h"
#include "kernels/x86_avx2/vec16.h"
#include "quant/tiles.h"
#include "tensor/tensor.h"

namespace edge {
namespace x86_avx2 {
namespace {
#include "kernels/generic/gptq.inl.h"
}  // namespace
}  // namespace x86_avx2

const GptqKernels kGptq_x86_avx2 = x86_avx2::kGptqTable;

}  // namespace edge
