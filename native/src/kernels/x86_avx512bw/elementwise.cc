// The element-wise kernels with AVX-512.
#include "kernels/elementwise.h"

#include "base/exact_math.h"
#include "kernels/x86_avx512bw/vec16.h"

namespace edge {
namespace x86_avx512bw {
namespace {
#include "kernels/generic/elementwise.inl.h"
}  // namespace
}  // namespace x86_avx512bw

const ElementwiseKernels kElementwise_x86_avx512bw = x86_avx512bw::kTable;

}  // namespace edge
