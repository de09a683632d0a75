// The weight encoders with AVX-512.
#include "kernels/encode_kernels.h"
#include "kernels/x86_avx512bw/vec16.h"
#include "quant/tiles.h"
#include "tensor/tensor.h"

namespace edge {
namespace x86_avx512bw {
namespace {
#include "kernels/generic/encode.inl.h"
}  // namespace
}  // namespace x86_avx512bw

const EncodeKernels kEncode_x86_avx512bw = x86_avx512bw::kTable;

}  // namespace edge
