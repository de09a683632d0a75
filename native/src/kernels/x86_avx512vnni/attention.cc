#include "kernels/attention.h"

#include "base/inline.h"
#include "kernels/x86_avx512vnni/vec16.h"

namespace edge::x86_avx512vnni {
// clang-format off: attention is written on math
#include "kernels/generic/math.inl.h"
#include "kernels/generic/attention.inl.h"
// clang-format on
}  // namespace edge::x86_avx512vnni

namespace edge {

const AttentionKernels kAttention_x86_avx512vnni = {x86_avx512vnni::segment, x86_avx512vnni::merge,
                                                    x86_avx512vnni::finish};

}  // namespace edge
