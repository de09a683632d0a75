// The weight encoders with SSE4.1.
#include "kernels/encode_kernels.h"
#include "kernels/x86_sse41/vec16.h"
#include "quant/tiles.h"
#include "tensor/tensor.h"

namespace edge {
namespace x86_sse41 {
namespace {
#include "kernels/generic/encode.inl.h"
}  // namespace
}  // namespace x86_sse41

const EncodeKernels kEncode_x86_sse41 = x86_sse41::kTable;

}  // namespace edge
