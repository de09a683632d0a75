// What happens to whole rows: residual, norm, activation function, and quantization to the int8
// blocks that matmuls read. A warp makes a block of 32 columns. Included after a dialect.
#include "backends/gpu/sums.inl.h"

namespace EDGE_DEVICE {

EDGE_CONSTANT int kRowWarps = kRowThreads / kWarp;
EDGE_CONSTANT int kPanel = 16;
EDGE_CONSTANT int kBlockCols = 32;

EDGE_FN int64_t block_index(EDGE_ARGS Panels& panels, int64_t row, int64_t block) {
  const int64_t panel = row / kPanel;
  const int64_t left = panels.n_rows - panel * kPanel;
  const int64_t panel_rows = left < kPanel ? left : kPanel;
  return panel * kPanel * panels.n_blocks + block * panel_rows + row % kPanel;
}

EDGE_FN int level(float x, float inverse) {
  const int q = scalar::lane_to_int(x * inverse);
  return q > 127 ? 127 : q < -127 ? -127 : q;
}

EDGE_FN void store_block(int lane, EDGE_ARGS Panels& to, int64_t at, int q, float scale) {
  int sum = q;
  for (int lanes = 8; lanes > 0; lanes /= 2) sum += EDGE_XOR_LANE(sum, lanes);
  to.q[kBlockCols * at + lane] = static_cast<int8_t>(q);
  if (lane == 0) to.d[at] = scale;
  if (lane % 16 == 0) to.bias[2 * at + lane / 16] = -64 * sum;
}

// Block `block` of row `row`, of which this lane has column y (kernels/elementwise.h,
// quantize_row).
EDGE_FN void write_block(At at, EDGE_ARGS Act& out, int64_t row, int64_t block, float y,
                         EDGE_GLOBAL int32_t* flag) {
  const int lane = at.index % kWarp;
  if (out.f != nullptr) out.f[row * out.n_cols_padded + kBlockCols * block + lane] = y;
  const int largest = warp_max(magnitude_bits(y));
  if (largest > 0x7f7fffff) {
    if (lane == 0) *flag = 1;
    return;
  }
  const float amax = float_of(largest);
  const bool is_zero = amax < 0x1p-100f;
  const float scale = is_zero ? 0.0f : amax / 127.0f;
  const int q = level(y, is_zero ? 0.0f : 127.0f / amax);
  if (out.a8.q != nullptr) store_block(lane, out.a8, block_index(out.a8, row, block), q, scale);
  if (out.a8x2.q == nullptr) return;
  const int64_t first = block_index(out.a8x2, 2 * row, block);
  const float rest = fma_exact(-static_cast<float>(q), scale, y);
  store_block(lane, out.a8x2, first, q, scale);
  store_block(lane, out.a8x2, first + 1, level(rest, is_zero ? 0.0f : 254.0f / scale),
              scale / 254.0f);
}

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
