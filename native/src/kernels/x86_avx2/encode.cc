// The weight encoders with AVX2.
#include "kernels/encode_kernels.h"
#include "kernels/x86_avx2/vec16.h"
#include "quant/tiles.h"
#include "tensor/tensor.h"

namespace edge {
namespace x86_avx2 {
namespace {
#include "kernels/generic/encode.inl.h"
}  // namespace
}  // namespace x86_avx2

const EncodeKernels kEncode_x86_avx2 = x86_avx2::kTable;

}  // namespace edge
