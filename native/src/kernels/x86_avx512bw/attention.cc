#include "kernels/attention.h"

#include "base/inline.h"
#include "kernels/x86_avx512bw/quads.h"

namespace edge::x86_avx512bw {
// clang-format off: attention is written on math
#include "kernels/generic/math.inl.h"
#include "kernels/generic/attention.inl.h"
#include "kernels/generic/kv_store.inl.h"
// clang-format on
}  // namespace edge::x86_avx512bw

namespace edge {

const AttentionKernels kAttention_x86_avx512bw = {
    x86_avx512bw::segment,        x86_avx512bw::merge,     x86_avx512bw::finish,
    x86_avx512bw::quantize_query, x86_avx512bw::store_key, x86_avx512bw::store_value};

}  // namespace edge
