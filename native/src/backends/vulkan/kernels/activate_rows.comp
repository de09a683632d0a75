#version 460
#include "act_blocks.glsl"
#include "functions.glsl"
EDGE_ARGS(ActivateArgs)
layout(local_size_x = kRowThreads) in;

float biased(float_ptr x, int64_t from, float_ptr bias, int64_t i) {
  const bool is_biased = i < args.n_bias && !IS_NULL(bias);
  return is_biased ? add(AT(x, from).v, AT(bias, i).v) : AT(x, from).v;
}

void main() {
  const int64_t block = int64_t(GROUP.x) * kRowWarps + THREAD / kWarp;
  const int64_t i = kBlockCols * block + THREAD % kWarp;
  const int64_t from = GROUP.y * args.n_cols + i;
  float y = 0.0;
  if (i < args.n_cols) {
    y = activated(uint(args.act), biased(args.gate, from, args.gate_bias, i));
    if (!IS_NULL(args.up)) y = mul(y, biased(args.up, from, args.up_bias, i));
  }
  write_block(args.out_, GROUP.y, block, y, args.flag, block < args.out_.n_cols_padded / kBlockCols);
}
