// The element-wise kernels in plain C++.
#include "kernels/elementwise.h"

#include "base/exact_math.h"
#include "kernels/scalar/vec16.h"

namespace edge {
namespace scalar {
namespace {
#include "kernels/generic/elementwise.inl.h"
}  // namespace
}  // namespace scalar

const ElementwiseKernels kElementwise_scalar = scalar::kTable;

}  // namespace edge
