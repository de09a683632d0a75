// The element-wise kernels with SSE4.1.
#include "kernels/elementwise.h"

#include "base/exact_math.h"
#include "kernels/x86_sse41/vec16.h"

namespace edge {
namespace x86_sse41 {
namespace {
#include "kernels/generic/elementwise.inl.h"
}  // namespace
}  // namespace x86_sse41

const ElementwiseKernels kElementwise_x86_sse41 = x86_sse41::kTable;

}  // namespace edge
