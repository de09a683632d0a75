// The element-wise kernels with AVX-512.
#include "kernels/elementwise.h"

#include "kernels/x86_avx512vnni/vec16.h"

namespace edge {
namespace x86_avx512vnni {
namespace {
#include "kernels/generic/elementwise.inl.h"
}  // namespace
}  // namespace x86_avx512vnni

const ElementwiseKernels kElementwise_x86_avx512vnni = x86_avx512vnni::kTable;

}  // namespace edge
