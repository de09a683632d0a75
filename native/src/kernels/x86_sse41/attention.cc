#include "kernels/attention.h"

#include "base/inline.h"
#include "kernels/x86_sse41/quads.h"

namespace edge::x86_sse41 {
// clang-format off: attention is written on math
#include "kernels/generic/math.inl.h"
#include "kernels/generic/attention.inl.h"
#include "kernels/generic/kv_store.inl.h"
// clang-format on
}  // namespace edge::x86_sse41

namespace edge {

const AttentionKernels kAttention_x86_sse41 = {x86_sse41::segment,   x86_sse41::merge,
                                               x86_sse41::finish,    x86_sse41::quantize_query,
                                               x86_sse41::store_key, x86_sse41::store_value};

}  // namespace edge
