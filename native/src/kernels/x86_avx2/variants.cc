// The variants' row kernels with AVX2, FMA and F16C.
#include "kernels/variants.h"

#include "kernels/x86_avx2/vec16.h"

namespace edge {
namespace x86_avx2 {
namespace {
#include "kernels/generic/variants.inl.h"
}  // namespace
}  // namespace x86_avx2

const VariantKernels kVariants_x86_avx2 = x86_avx2::kTable;

}  // namespace edge
