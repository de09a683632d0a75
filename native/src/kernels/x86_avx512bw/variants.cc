// The variants' row kernels with AVX-512.
#include "kernels/variants.h"

#include "kernels/x86_avx512bw/vec16.h"

namespace edge {
namespace x86_avx512bw {
namespace {
#include "kernels/generic/variants.inl.h"
}  // namespace
}  // namespace x86_avx512bw

const VariantKernels kVariants_x86_avx512bw = x86_avx512bw::kTable;

}  // namespace edge
