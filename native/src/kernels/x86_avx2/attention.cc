#include "kernels/attention.h"

#include "base/inline.h"
#include "kernels/x86_avx2/quads.h"

namespace edge::x86_avx2 {
// clang-format off: attention is written on math
#include "kernels/generic/math.inl.h"
#include "kernels/generic/attention.inl.h"
#include "kernels/generic/kv_store.inl.h"
// clang-format on
}  // namespace edge::x86_avx2

namespace edge {

const AttentionKernels kAttention_x86_avx2 = {x86_avx2::segment,   x86_avx2::merge,
                                              x86_avx2::finish,    x86_avx2::quantize_query,
                                              x86_avx2::store_key, x86_avx2::store_value};

}  // namespace edge
