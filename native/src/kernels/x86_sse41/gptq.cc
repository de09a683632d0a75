// The search of GPTQ with SSE4.1.
#include "kernels/gptq_kernels.h"
#include "kernels/x86_sse41/vec16.h"
#include "quant/tiles.h"
#include "tensor/tensor.h"

namespace edge {
namespace x86_sse41 {
namespace {
#include "kernels/generic/gptq.inl.h"
}  // namespace
}  // namespace x86_sse41

const GptqKernels kGptq_x86_sse41 = x86_sse41::kGptqTable;

}  // namespace edge
