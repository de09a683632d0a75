// The weight encoders with AVX-512.
#include "kernels/encode_kernels.h"
#include "kernels/x86_avx512vnni/vec16.h"
#include "quant/tiles.h"
#include "tensor/tensor.h"

namespace edge {
namespace x86_avx512vnni {
namespace {
#include "kernels/generic/encode.inl.h"
}  // namespace
}  // namespace x86_avx512vnni

const EncodeKernels kEncode_x86_avx512vnni = x86_avx512vnni::kTable;

}  // namespace edge
