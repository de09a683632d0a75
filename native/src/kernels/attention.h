// Attention over F16 pages: one segment of 256 positions for a few queries of one kv head, and how
// segments combine. One table per ISA, all equal to the scalar one bit for bit.
//
// The sums (docs/KERNELS.md, "Attention"): scores run over head_dim in order, one chain each; p and
// l over 16 lanes of positions; o over positions in order. Masked positions are never touched, so
// stale bytes in a page cannot matter. Knows nothing of threads or models.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace edge {

constexpr int kSegmentTokens = 256;
constexpr int kMaxQueries = 4;  // of one call
constexpr int kMaxHeadDim = 1024;

struct AttentionSegmentArgs {
  const uint8_t* const* pages = nullptr;  // of the segment: pages[0] holds its first position
  size_t key_offset = 0;                  // of the kv head in a page: f16 [head_dim][32]
  size_t value_offset = 0;                //                          f16 [32][head_dim]
  int head_dim = 0;
  float scale = 0;
  float softcap = 0;                 // > 0: a score s becomes softcap * tanh(s / softcap)
  int n_queries = 0;                 // 1..kMaxQueries
  const float* q[kMaxQueries] = {};  // each [head_dim]
  int first = 0;                     // position of the segment from which all queries see
  int n_visible[kMaxQueries] = {};   // and up to which each does, exclusive: first < it <= 256
  float m[kMaxQueries] = {};         // out: largest score
  float l[kMaxQueries] = {};         // out: sum of exp(score - m)
  float* o[kMaxQueries] = {};        // out: [head_dim] sum of exp(score - m) * value
};

struct AttentionKernels {
  void (*segment)(AttentionSegmentArgs& args);
  // (m, l, o) += (m2, l2, o2) of the next segment, with the usual rescale.
  void (*merge)(float* m, float* l, float* o, float m2, float l2, const float* o2, int head_dim);
  // out = o / l. `out` may be o.
  void (*finish)(const float* o, float l, int head_dim, float* out);
};

extern const AttentionKernels kAttention_scalar;
extern const AttentionKernels kAttention_x86_sse41;
extern const AttentionKernels kAttention_x86_avx2;
extern const AttentionKernels kAttention_x86_avx512bw;
extern const AttentionKernels kAttention_arm_neon;

}  // namespace edge
