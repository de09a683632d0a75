#include "kernels/attention.h"

#include "base/inline.h"
#include "kernels/scalar/quads.h"

namespace edge::scalar {
// clang-format off: attention is written on math
#include "kernels/generic/math.inl.h"
#include "kernels/generic/attention.inl.h"
#include "kernels/generic/kv_store.inl.h"
// clang-format on
}  // namespace edge::scalar

namespace edge {

const AttentionKernels kAttention_scalar = {scalar::segment,   scalar::merge,
                                            scalar::finish,    scalar::quantize_query,
                                            scalar::store_key, scalar::store_value};

}  // namespace edge
