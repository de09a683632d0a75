// What kernels are given, the same bytes on the host and on a device: one struct a kernel, by the
// kernel's name. Pointers are the device's; shapes are as in backends/backend.h, and sums have the
// CPU's bits (docs/KERNELS.md). Row r of `rows` is the step's; `flag` becomes 1 where a value is
// not finite. Included by kernels in every dialect, so it holds plain data only, and
// made into GLSL by cmake/vulkan.cmake, so it is written plainly: pointers as below, no expressions
// of C++.
#pragma once

#include "backends/op_kinds.h"
#include "base/inline.h"
#include "base/plain_types.h"

// Before what a pointer points to: memory of the device.
#if defined(__METAL_VERSION__)
#define EDGE_GLOBAL device
#else
#define EDGE_GLOBAL
#endif

namespace edge::gpu {

// kernels/kv_format.h and kernels/attention.h, which gpu_backend.cc compares.
EDGE_CONSTANT int kPageTokens = 16;
EDGE_CONSTANT int kFirstTokens = 32;
EDGE_CONSTANT int kSegmentTokens = 256;
EDGE_CONSTANT int kMostHeadDim = 1024;

// Threads of a group.
EDGE_CONSTANT int kWarp = 32;
EDGE_CONSTANT int kElementThreads = 256;  // of kernels with a thread an element
EDGE_CONSTANT int kRowThreads = 256;
EDGE_CONSTANT int kHeadThreads = 128;
EDGE_CONSTANT int kMatmulThreads = 256;
EDGE_CONSTANT int kMatmulF32Threads = 64;
EDGE_CONSTANT int kGemmTiles = 4;  // of a strip at a time
EDGE_CONSTANT int kGemmStripThreads = 16 * kGemmTiles;
EDGE_CONSTANT int kFloatThreads = 128;
EDGE_CONSTANT int kFloatRows = 32;  // of activations, of a group of gemm_float
EDGE_CONSTANT int kFloatStrips = 2;

EDGE_CONSTANT int kMostExperts = 1024;  // of a layer

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
struct Page {
  EDGE_GLOBAL uint8_t* bytes;
};
struct PageTable {
  EDGE_GLOBAL const Page* pages;
};
struct Rows {
  EDGE_GLOBAL const Row* rows;
  EDGE_GLOBAL const PageTable* tables;  // of the layer's group; null where no page is met
};

// Int8Rows without its host functions.
struct Panels {
  EDGE_GLOBAL int8_t* q;
  EDGE_GLOBAL float* d;
  EDGE_GLOBAL int32_t* bias;
  int64_t n_blocks;
  int64_t n_rows;
};
// ActRows, of which what is null is not wanted.
struct Act {
  Panels a8, a8x2;
  EDGE_GLOBAL float* f;
  int64_t n_cols_padded;
};

struct FloatMatrix {
  EDGE_GLOBAL float* data;
  int64_t n_cols;
  int64_t stride;
};
// A matrix in tiles.
struct Matrix {
  EDGE_GLOBAL const uint8_t* strips;
  int64_t strip_bytes;
  int64_t tiles_offset;
  int64_t n_tiles;  // of a strip
};

struct NormArgs {
  EDGE_GLOBAL const float* weight;  // null: no norm
  EDGE_GLOBAL const float* bias;
  float eps;
  NormKind kind;
};
struct ResidualArgs {
  EDGE_GLOBAL const float* delta;
  EDGE_GLOBAL const float* bias;
  NormArgs norm;
};

// ---- embed: x[r] = row token(r) of the table times scale; positions: x[r] += its row position(r).
struct EmbedArgs {
  Rows rows;
  Matrix table;  // plain_positions: strips is f32 [][n_cols]
  FloatMatrix x;
  float scale;
};
struct RopeArgs {
  Rows rows;
  EDGE_GLOBAL const float* inv_freq;
  EDGE_GLOBAL float* cos;
  EDGE_GLOBAL float* sin;
  int32_t n_angles;  // of a row
  float factor;
};

// ---- rows: of rows pick[i], or all: x += residual, then out = norm(x).
struct NormRowsArgs {
  ResidualArgs more;
  FloatMatrix x;
  EDGE_GLOBAL const int32_t* pick;
  NormArgs norm;
  Act out;
  EDGE_GLOBAL int32_t* flag;
};
struct AddResidualArgs {
  ResidualArgs more;
  FloatMatrix x;
};
// out = x, padded.
struct QuantizeArgs {
  FloatMatrix x;
  Act out;
  EDGE_GLOBAL int32_t* flag;
};
struct ActivateArgs {
  EDGE_GLOBAL const float* gate;  // or up, where `up` is null
  EDGE_GLOBAL const float* up;
  EDGE_GLOBAL const float* gate_bias;
  EDGE_GLOBAL const float* up_bias;
  int64_t n_bias;
  int64_t n_cols;  // a multiple of 16
  Act out;
  EDGE_GLOBAL int32_t* flag;
  FfnAct act;
};
struct LogitsArgs {
  EDGE_GLOBAL float* logits;
  int64_t n;
  int64_t stride;
  EDGE_GLOBAL int32_t* flag;
  float softcap;
};

// ---- matmul: y[r][row] of all strips' rows.
struct MatmulArgs {
  Matrix w;
  int64_t n_strips;
  Panels act;
  EDGE_GLOBAL const float* f;  // for matmul_f32, [][f_stride]
  int64_t f_stride;
  EDGE_GLOBAL float* y;
  int64_t stride;
};
// y[r] = parts[2 r] + parts[2 r + 1], rows of `n`.
struct AddPairsArgs {
  EDGE_GLOBAL const float* parts;
  int64_t n;
  EDGE_GLOBAL float* y;
  int64_t stride;
};

// ---- kv_store
// What becomes of the heads of q, k or v behind their matrix.
struct HeadsArgs {
  EDGE_GLOBAL const float* raw;  // [n_rows][stride], what the matrix gave
  int64_t stride;
  EDGE_GLOBAL const float* bias;
  NormArgs norm;
  int64_t n_norm;                // as long as its weight
  EDGE_GLOBAL const float* cos;  // [n_rows][n_rope / 2]
  EDGE_GLOBAL const float* sin;
  EDGE_GLOBAL const float* mean;  // of the kv head's channels
  EDGE_GLOBAL const float* scale;
  int32_t head_dim;
  int32_t n_rope;
  int32_t heads_per_scale;
  int32_t divides;  // queries by the scale; keys are centred and multiplied
  int32_t mixes;
  float mix_scale;  // 1 / sqrt(what mixes together)
};
// Where one kv head stands in a page (KvHead).
struct KvPart {
  int32_t head_dim;
  int32_t key_bits;
  int32_t value_bits;
  int32_t key_channels;
  int32_t value_channels;
  int32_t value_row_bytes;
  uint64_t n_bytes;
  uint64_t keys;
  uint64_t values;
  uint64_t key_scales;
  uint64_t value_scales;
};
// Of a layer, in the first pages and in the others: the kv heads of even number and of odd.
struct PagesArgs {
  KvPart first[2];
  KvPart other[2];
  int32_t has_first;
};
struct StoreArgs {
  HeadsArgs heads;
  Rows rows;
  PagesArgs pages;
  EDGE_GLOBAL float* q;  // for finish_queries
  EDGE_GLOBAL int32_t* flag;
};

// ---- attention
// Rows that read the same slots: of one sequence and no tree of drafts, or one alone.
struct RowGroup {
  int32_t first;
  int32_t n;
};
// Segments of positions of rows from row0 on, each for itself, to partials
// [n_rows][n_heads][n_segments][2 + head_dim] (m, l, o); then their sums, in order, to q.
struct AttentionArgs {
  Rows rows;
  EDGE_GLOBAL const RowGroup* groups;
  PagesArgs pages;
  EDGE_GLOBAL float* q;
  EDGE_GLOBAL float* partials;
  EDGE_GLOBAL int32_t* flag;
  int64_t q_stride;
  int32_t n_heads;
  int32_t n_kv_heads;
  int32_t head_dim;
  int32_t query_channels;
  int32_t window;
  int32_t first_segment;
  int32_t n_segments;
  int32_t n_parts;  // of a group's queries of a kv head
  int32_t row0;
  float scale;
  float softcap;
};

// ---- experts: a pair is a row and one of the experts that it goes to; pairs of a row follow each
// other, by ascending expert.
// Of each row: logits become the softmax over all experts, of which the n_used largest are chosen.
struct RouteArgs {
  EDGE_GLOBAL float* logits;  // [n_rows][stride]
  EDGE_GLOBAL float* shared;  // [n_rows][kTileRows]
  EDGE_GLOBAL int32_t* ids;   // [n_rows][n_used]
  EDGE_GLOBAL float* weights;
  EDGE_GLOBAL int32_t* flag;
  int64_t stride;
  int32_t n_experts;
  int32_t n_used;
  int32_t normalize;
  int32_t has_shared_gate;
};
struct CountRoutesArgs {
  EDGE_GLOBAL const int32_t* ids;
  EDGE_GLOBAL uint64_t* n_routed;  // [n_experts], added to
  int32_t n_pairs;
  int32_t n_experts;
};
// Pairs [first, first + n) of those ordered by expert; n = 0: nothing to do.
struct ExpertPart {
  int32_t expert;
  int32_t first;
  int32_t n;
};
struct OrderPairsArgs {
  EDGE_GLOBAL const int32_t* ids;  // by pair
  EDGE_GLOBAL int32_t* order;      // [n_pairs]: pairs by expert, those of one in their order
  EDGE_GLOBAL ExpertPart* parts;   // [n_parts]: of one expert each, at most part_pairs pairs
  int32_t n_pairs;
  int32_t n_experts;
  int32_t part_pairs;
  int32_t n_parts;
};
// y[pair] = the pair's expert times a row of activations: row row0 + pair / per_row of `act`, or
// of `f`. With halves = 2 that is rows 2 r and 2 r + 1, and y has two rows for each pair.
struct ExpertsArgs {
  Matrix w;  // of the first expert
  int64_t expert_bytes;
  Panels act;
  EDGE_GLOBAL const float* f;
  int64_t f_stride;
  EDGE_GLOBAL float* y;
  int64_t stride;
  EDGE_GLOBAL const int32_t* ids;
  EDGE_GLOBAL const int32_t* order;
  EDGE_GLOBAL const ExpertPart* parts;
  int32_t row0;
  int32_t per_row;
  int32_t halves;
};
// y[r] = sum of weight * pair over a row's pairs, in their order, and its shared expert last.
struct SumExpertsArgs {
  EDGE_GLOBAL const float* pairs;  // [n_rows * n_used][stride]
  EDGE_GLOBAL const float* weights;
  EDGE_GLOBAL const float* shared;  // [n_rows][stride]; null: none
  EDGE_GLOBAL const float* shared_weights;
  EDGE_GLOBAL float* y;  // [n_rows][y_stride]
  int64_t stride;
  int64_t y_stride;
  int64_t n;
  int32_t n_used;
};

// ---- short_conv: b * x of every row to its page, then what the taps make of a row's last ones.
struct ShortConvArgs {
  Rows rows;
  EDGE_GLOBAL const float* bcx;  // [n_rows][stride]: b, c, x
  int64_t stride;
  int64_t n_cols;
  uint64_t offset;  // of the layer in a page
  EDGE_GLOBAL const float* taps;
  Act out;
  EDGE_GLOBAL int32_t* flag;
  int32_t n_taps;
};

// The number of the segment that a position is in (kernels/attention.h); first pages in a format of
// their own are one.
EDGE_INLINE int segment_of(bool has_first, int position) {
  if (!has_first) return position / kSegmentTokens;
  return position < kFirstTokens ? 0 : 1 + position / kSegmentTokens;
}

}  // namespace edge::gpu
