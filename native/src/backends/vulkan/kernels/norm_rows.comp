#version 460
#include "act_blocks.glsl"
#include "residual.glsl"
EDGE_ARGS(NormRowsArgs)
layout(local_size_x = kRowThreads) in;

void main() {
  const int64_t row = IS_NULL(args.pick) ? GROUP.x : AT(args.pick, GROUP.x).v;
  float_ptr x = AT(args.x.data, row * args.x.stride);
  add_more(args.more, x, row * args.x.stride, args.x.n_cols);
  Column column = column_of(x, float_ptr(0ul));
  const NormFactors factors = norm_factors(args.norm, args.x.n_cols, column);
  const int64_t n_blocks = args.out_.n_cols_padded / kBlockCols;
  for (int64_t first = 0; first < n_blocks; first += kRowWarps) {
    const int64_t block = first + THREAD / kWarp;
    const int64_t i = kBlockCols * block + THREAD % kWarp;
    float y = 0.0;
    if (i < args.x.n_cols) y = normed(args.norm, factors, value_of(column, i), i);
    write_block(args.out_, GROUP.x, block, y, args.flag, block < n_blocks);
  }
}
