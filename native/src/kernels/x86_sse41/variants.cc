// The variants' row kernels with SSE4.1.
#include "kernels/variants.h"

#include "kernels/x86_sse41/vec16.h"

namespace edge {
namespace x86_sse41 {
namespace {
#include "kernels/generic/variants.inl.h"
}  // namespace
}  // namespace x86_sse41

const VariantKernels kVariants_x86_sse41 = x86_sse41::kTable;

}  // namespace edge
