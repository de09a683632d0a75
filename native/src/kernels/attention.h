// Attention over pages of keys and values: one segment of 256 positions for a few queries of one kv
// head, how segments combine, and how a token's key and value are put to a page (kv_format.h). One
// table per ISA, all equal to the scalar one bit for bit.
//
// The sums (docs/KERNELS.md, "Attention"): scores run over head_dim in order, one chain each; p and
// l over 16 lanes of positions; o over positions in order. Masked positions are never touched, so
// stale bytes in a page cannot matter. Knows nothing of threads or models.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/kv_format.h"

namespace edge {

constexpr int kSegmentTokens = 256;
constexpr int kMaxQueries = 4;  // of one call
constexpr int kMaxHeadDim = 1024;

// A query as int8 keys meet it, in their groups (KvHead::key_channels): q is about q8 * scale.
struct QueryInt8 {
  int8_t* q = nullptr;     // [head_dim rounded up to 4], the padding zero
  float* scale = nullptr;  // [n_scales]
  int32_t* sum = nullptr;  // [n_scales] of q
};

struct AttentionSegmentArgs {
  const uint8_t* const* pages = nullptr;  // of the segment: pages[0] holds its first position
  KvHead kv;                              // in each of them
  float scale = 0;
  float softcap = 0;                 // > 0: a score s becomes softcap * tanh(s / softcap)
  int n_queries = 0;                 // 1..kMaxQueries
  const float* q[kMaxQueries] = {};  // each [head_dim], for F16 keys
  QueryInt8 q8[kMaxQueries];         // for the others
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
  // Per group: amax, scale = amax / 127 and q = round_even(x * (127 / amax)) as for activations;
  // False, with `out` unspecified, if a value is not finite.
  bool (*quantize_query)(const float* query, int head_dim, int channels, const QueryInt8& out);
  // Put a key or a value [head_dim] to its place. False, with the place unspecified, if it has a
  // value that is not finite or too large for the format.
  bool (*store_key)(const KvSlot& to, const float* key);
  bool (*store_value)(const KvSlot& to, const float* value);
};

extern const AttentionKernels kAttention_scalar;
extern const AttentionKernels kAttention_x86_sse41;
extern const AttentionKernels kAttention_x86_avx2;
extern const AttentionKernels kAttention_x86_avx512bw;
extern const AttentionKernels kAttention_x86_avx512vnni;
extern const AttentionKernels kAttention_arm_neon;
extern const AttentionKernels kAttention_arm_neon_dot;

}  // namespace edge
