// The variants' row kernels in plain C++.
#include "kernels/variants.h"

#include "kernels/scalar/vec16.h"

namespace edge {
namespace scalar {
namespace {
#include "kernels/generic/variants.inl.h"
}  // namespace
}  // namespace scalar

const VariantKernels kVariants_scalar = scalar::kTable;

}  // namespace edge
