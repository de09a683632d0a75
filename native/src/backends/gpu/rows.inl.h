// What happens to whole rows: residual, norm, activation function, and quantization to the int8
// blocks that matmuls read. A warp makes a block of 32 columns. Included after a dialect.
#include "backends/gpu/act_blocks.inl.h"
#include "backends/gpu/sums.inl.h"

namespace EDGE_DEVICE {

EDGE_CONSTANT int kRowWarps = kRowThreads / kWarp;

struct Column {
  EDGE_GLOBAL const float* x;
  EDGE_MEMBER_FN float operator()(int64_t i) const { return x[i]; }
};
struct BiasedColumn {
  EDGE_GLOBAL const float* x;
  EDGE_GLOBAL const float* bias;  // null: none
  EDGE_MEMBER_FN float operator()(int64_t i) const {
    return bias == nullptr ? x[i] : x[i] + bias[i];
  }
};

// x[i] += what `more` says, for the group's row, which begins at column `first` of all.
EDGE_FN void add_more(At at, EDGE_ARGS ResidualArgs& more, EDGE_GLOBAL float* x, int64_t first,
                      int64_t n, EDGE_GROUP float* lanes) {
  if (more.delta == nullptr) return;
  const BiasedColumn added = {more.delta + first, more.bias};
  const NormFactors factors = norm_factors(at, more.norm, n, lanes, added);
  for (int64_t i = at.index; i < n; i += kRowThreads) {
    x[i] = x[i] + normed(more.norm, factors, added(i), i);
  }
  EDGE_SYNC();
}

EDGE_FN float activated(FfnAct act, float x) {
  switch (act) {
    case FfnAct::kSilu:
      return Silu::of({x}).v;
    case FfnAct::kGelu:
      return Gelu::of({x}).v;
    case FfnAct::kGeluTanh:
      return GeluTanh::of({x}).v;
    case FfnAct::kRelu:
      return Relu::of({x}).v;
  }
  return 0;
}

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

EDGE_KERNEL(norm_rows, NormRowsArgs, kRowThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, lanes, [kLanes]);
  const int64_t row = args.pick == nullptr ? at.x : args.pick[at.x];
  EDGE_GLOBAL float* x = args.x.data + row * args.x.stride;
  add_more(at, args.more, x, row * args.x.stride, args.x.n_cols, lanes);
  const Column value = {x};
  const NormFactors factors = norm_factors(at, args.norm, args.x.n_cols, lanes, value);
  const int64_t n_blocks = args.out.n_cols_padded / kBlockCols;
  for (int64_t block = at.index / kWarp; block < n_blocks; block += kRowWarps) {
    const int64_t i = kBlockCols * block + at.index % kWarp;
    const float y = i < args.x.n_cols ? normed(args.norm, factors, value(i), i) : 0.0f;
    write_block(at, args.out, at.x, block, y, args.flag);
  }
}

EDGE_KERNEL(add_residual, AddResidualArgs, kRowThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, lanes, [kLanes]);
  const int64_t first = at.x * args.x.stride;
  add_more(at, args.more, args.x.data + first, first, args.x.n_cols, lanes);
}

EDGE_KERNEL(quantize_rows, QuantizeArgs, kRowThreads) {
  const At at = EDGE_AT;
  const int64_t block = static_cast<int64_t>(at.x) * kRowWarps + at.index / kWarp;
  if (block >= args.out.n_cols_padded / kBlockCols) return;
  const int64_t i = kBlockCols * block + at.index % kWarp;
  const float y = i < args.x.n_cols ? args.x.data[at.y * args.x.stride + i] : 0.0f;
  write_block(at, args.out, at.y, block, y, args.flag);
}

EDGE_KERNEL(activate_rows, ActivateArgs, kRowThreads) {
  const At at = EDGE_AT;
  const int64_t block = static_cast<int64_t>(at.x) * kRowWarps + at.index / kWarp;
  if (block >= args.out.n_cols_padded / kBlockCols) return;
  const int64_t i = kBlockCols * block + at.index % kWarp;
  const int64_t from = at.y * args.n_cols + i;
  const bool is_biased = i < args.n_bias;
  float y = 0;
  if (i < args.n_cols) {
    const float gate = args.gate[from];
    y = activated(args.act,
                  is_biased && args.gate_bias != nullptr ? gate + args.gate_bias[i] : gate);
    if (args.up != nullptr) {
      const float up = args.up[from];
      y = y * (is_biased && args.up_bias != nullptr ? up + args.up_bias[i] : up);
    }
  }
  write_block(at, args.out, at.y, block, y, args.flag);
}

EDGE_KERNEL(finish_logits, LogitsArgs, kElementThreads) {
  const At at = EDGE_AT;
  const int64_t i = static_cast<int64_t>(at.x) * kElementThreads + at.index;
  if (i >= args.n) return;
  EDGE_GLOBAL float* x = args.logits + at.y * args.stride + i;
  if (magnitude_bits(*x) >= 0x7f800000) *args.flag = 1;
  if (args.softcap > 0) *x = softcapped({*x}, {args.softcap}).v;
}

EDGE_EXPORT(norm_rows)
EDGE_EXPORT(add_residual)
EDGE_EXPORT(quantize_rows)
EDGE_EXPORT(activate_rows)
EDGE_EXPORT(finish_logits)
