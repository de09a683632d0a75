// The kernels as the host calls them, one function each, queued on a stream. Pointers are the
// device's; shapes are as in backends/backend.h, and sums have the CPU's bits (docs/KERNELS.md).
// Row r of `rows` is the step's; `flag` becomes 1 where a value is not finite.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "backends/op_kinds.h"
#include "base/inline.h"
#include "kernels/attention.h"
#include "kernels/kv_format.h"
#include "tensor/tensor.h"

namespace edge::cuda {

// A row of a step (RowInput).
struct Row {
  int32_t token;
  int32_t position;
  int32_t slot;
  int32_t n_seen;
  int32_t n_tail;
  int32_t sequence;  // whose pages are tables[sequence]
  int32_t tail[16];
};
using PageTable = const uint8_t* const*;
struct Rows {
  const Row* rows = nullptr;
  const PageTable* tables = nullptr;  // of the layer's group; null where no page is met
  int n_rows = 0;
};

// Int8Rows without its host functions.
struct Panels {
  int8_t* q = nullptr;
  float* d = nullptr;
  int32_t* bias = nullptr;
  int64_t n_blocks = 0;
  int n_rows = 0;
};
// ActRows, of which what is null is not wanted.
struct Act {
  Panels a8, a8x2;
  float* f = nullptr;
  int64_t n_cols_padded = 0;
};

struct NormArgs {
  NormKind kind = NormKind::kRms;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float eps = 0;
};
struct ResidualArgs {
  const float* delta = nullptr;
  const float* bias = nullptr;
  NormArgs norm;
};
struct FloatMatrix {
  float* data = nullptr;
  int64_t n_cols = 0;
  int64_t stride = 0;
};

// ---- matmul.cu: y[r][row] of all strips' rows. `weight` has data on the device.
bool matmul_a8(const Tensor& weight, const Panels& act, float* y, int64_t stride, cudaStream_t s);
bool matmul_f32(const Tensor& weight, const float* act, int64_t act_stride, int n_rows, float* y,
                int64_t stride, cudaStream_t s);
// y[r] = parts[2 r] + parts[2 r + 1], rows of `n`.
void add_pairs(const float* parts, int n_rows, int64_t n, float* y, int64_t stride, cudaStream_t s);

// ---- embed.cu
// x[r] = row token(r) of the table times scale; positions: x[r] += row position(r) of it.
bool embed(const Rows& rows, const Tensor& table, float scale, const FloatMatrix& x,
           cudaStream_t s);
bool add_positions(const Rows& rows, const Tensor& positions, const FloatMatrix& x, cudaStream_t s);
void rope_table(const Rows& rows, const float* inv_freq, int half, float factor, float* cos,
                float* sin, cudaStream_t s);

// ---- rows.cu
// Of rows pick[i], or all: x += residual, then out = norm(x).
void norm_rows(const ResidualArgs& more, const FloatMatrix& x, const int32_t* pick, int n_rows,
               const NormArgs& norm, const Act& out, int* flag, cudaStream_t s);
void add_residual(const ResidualArgs& more, const FloatMatrix& x, int n_rows, cudaStream_t s);
// out = x, padded.
void quantize_rows(const FloatMatrix& x, int n_rows, const Act& out, int* flag, cudaStream_t s);
struct ActivateArgs {
  FfnAct act = FfnAct::kSilu;
  const float* gate = nullptr;  // or up, where `up` is null
  const float* up = nullptr;
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  int64_t n_bias = 0;
  int64_t n_cols = 0;  // a multiple of 16
};
void activate_rows(const ActivateArgs& args, int n_rows, const Act& out, int* flag, cudaStream_t s);
void finish_logits(float* logits, int n_rows, int64_t n, int64_t stride, float softcap, int* flag,
                   cudaStream_t s);

// ---- kv_store.cu
// What becomes of the heads of q, k or v behind their matrix.
struct HeadsArgs {
  const float* raw = nullptr;  // [n_rows][stride], what the matrix gave
  int64_t stride = 0;
  int n_heads = 0;
  int head_dim = 0;
  const float* bias = nullptr;
  const float* norm = nullptr;  // [n_norm]
  int64_t n_norm = 0;
  float eps = 0;
  const float* cos = nullptr;  // null: heads do not turn
  const float* sin = nullptr;
  int n_rope = 0;
  const float* mean = nullptr;  // of the kv head's channels
  const float* scale = nullptr;
  int heads_per_scale = 1;
  bool divides = false;  // queries by the scale; keys are centred and multiplied
  bool mixes = false;
};
// Where a layer's keys and values stand in its pages: in the first ones and in the others, the kv
// heads of even number and of odd.
struct PagesArgs {
  bool has_first = false;
  KvHead first[2];
  KvHead other[2];
};
void finish_queries(const HeadsArgs& args, int n_rows, float* q, cudaStream_t s);
void store_keys(const HeadsArgs& args, const Rows& rows, const PagesArgs& pages, int* flag,
                cudaStream_t s);
void store_values(const HeadsArgs& args, const Rows& rows, const PagesArgs& pages, int* flag,
                  cudaStream_t s);

// ---- attention.cu
// The number of the segment that a position is in (kernels/attention.h); first pages in a format of
// their own are one.
EDGE_INLINE int segment_of(bool has_first, int position) {
  if (!has_first) return position / kSegmentTokens;
  return position < kFirstTokens ? 0 : 1 + position / kSegmentTokens;
}
struct AttentionArgs {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  float scale = 0;
  float softcap = 0;
  int window = 0;
  int64_t q_stride = 0;
  int first_segment = 0;
  int n_segments = 0;
  int row0 = 0;
};
// Segments of positions of rows [row0, row0 + n_rows), each for itself, to partials
// [n_rows][n_heads][n_segments][2 + head_dim] (m, l, o); then their sums, in order, to q.
void attend(const AttentionArgs& args, const Rows& rows, int n_rows, const PagesArgs& pages,
            const float* q, float* partials, int* flag, cudaStream_t s);
void merge_segments(const AttentionArgs& args, const Rows& rows, int n_rows, const PagesArgs& pages,
                    float* partials, float* q, cudaStream_t s);

}  // namespace edge::cuda
