#version 460
#include "act_blocks.glsl"
#include "short_conv.glsl"
layout(local_size_x = kRowThreads) in;

void main() {
  const int64_t block = int64_t(GROUP.x) * kRowWarps + THREAD / kWarp;
  const int64_t i = kBlockCols * block + THREAD % kWarp;
  Row_ptr row = AT(args.rows.rows, GROUP.y);
  const int n_seen = row.v.n_seen, n = smaller(args.n_taps, n_seen);
  float y = 0.0;
  if (i < args.n_cols) {
    float_ptr taps = AT(args.taps, (args.n_taps - n) * args.n_cols + i);
    float sum = 0.0;
    for (int t = 0; t < n; ++t) {
      const float state = AT(state_of(row.v.sequence, slot_of(row, n_seen - n + t)), i).v;
      sum = fma_exact(AT(taps, t * args.n_cols).v, state, sum);
    }
    y = mul(AT(args.bcx, GROUP.y * args.stride + args.n_cols + i).v, sum);
  }
  write_block(args.out_, GROUP.y, block, y, args.flag, block < args.out_.n_cols_padded / kBlockCols);
}
