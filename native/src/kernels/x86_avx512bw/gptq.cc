// The search of GPTQ with AVX-512.
#include "kernels/gptq_kernels.h"
#include "kernels/x86_avx512bw/vec16.h"
#include "quant/tiles.h"
#include "tensor/tensor.h"

namespace edge {
namespace x86_avx512bw {
namespace {
#include "kernels/generic/gptq.inl.h"
}  // namespace
}  // namespace x86_avx512bw

const GptqKernels kGptq_x86_avx512bw = x86_avx512bw::kGptqTable;

}  // namespace edge
