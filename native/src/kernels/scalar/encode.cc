// The weight encoders in plain C++.
#include "kernels/encode_kernels.h"
#include "kernels/scalar/vec16.h"
#include "quant/tiles.h"
#include "tensor/tensor.h"

namespace edge {
namespace scalar {
namespace {
#include "kernels/generic/encode.inl.h"
}  // namespace
}  // namespace scalar

const EncodeKernels kEncode_scalar = scalar::kTable;

}  // namespace edge
