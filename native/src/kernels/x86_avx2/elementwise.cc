// The element-wise kernels with AVX2, FMA and F16C.
#include "kernels/elementwise.h"

#include "base/exact_math.h"
#include "kernels/x86_avx2/vec16.h"

namespace edge {
namespace x86_avx2 {
namespace {
#include "kernels/generic/elementwise.inl.h"
}  // namespace
}  // namespace x86_avx2

const ElementwiseKernels kElementwise_x86_avx2 = x86_avx2::kTable;

}  // namespace edge
