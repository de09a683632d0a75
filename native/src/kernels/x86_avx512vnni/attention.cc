#include "kernels/attention.h"

#include "base/inline.h"
#include "kernels/x86_avx512bw/bytes16.h"

namespace edge::x86_avx512vnni {

using namespace x86_avx512bw;

constexpr int kQuadWords = 1;
constexpr int kScoreVectors = 2;
constexpr int kValueSums = 16;
constexpr int kQuadOffset = 0;

using Quads = I;
EDGE_INLINE Quads load_quads(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
EDGE_INLINE void prepare_quad(const int8_t* q, int32_t* words) { memcpy(words, q, 4); }
// In assembly: GCC 12 copies the sums of a loop from register to register around the intrinsics.
EDGE_INLINE I dot(I acc, const Quads& k, const int32_t* words) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc.a) : "v"(k.a), "v"(_mm512_set1_epi32(words[0])));
  return acc;
}

#include "kernels/generic/value_words.inl.h"

EDGE_INLINE I dot_words(I acc, const Words& v, const int16_t* w) {
  int32_t pairs[2];
  memcpy(pairs, w, sizeof pairs);
  asm("vpdpwssd %2, %1, %0" : "+v"(acc.a) : "v"(v.even), "v"(_mm512_set1_epi32(pairs[0])));
  asm("vpdpwssd %2, %1, %0" : "+v"(acc.a) : "v"(v.odd), "v"(_mm512_set1_epi32(pairs[1])));
  return acc;
}

// clang-format off: attention is written on math
#include "kernels/generic/math.inl.h"
#include "kernels/generic/attention.inl.h"
#include "kernels/generic/kv_store.inl.h"
// clang-format on
}  // namespace edge::x86_avx512vnni

namespace edge {

const AttentionKernels kAttention_x86_avx512vnni = {
    x86_avx512vnni::segment,        x86_avx512vnni::merge,     x86_avx512vnni::finish,
    x86_avx512vnni::quantize_query, x86_avx512vnni::store_key, x86_avx512vnni::store_value};

}  // namespace edge
