#version 460
#include "act_blocks.glsl"
EDGE_ARGS(QuantizeArgs)
layout(local_size_x = kRowThreads) in;

void main() {
  const int64_t block = int64_t(GROUP.x) * kRowWarps + THREAD / kWarp;
  const int64_t i = kBlockCols * block + THREAD % kWarp;
  const float y = i < args.x.n_cols ? AT(args.x.data, GROUP.y * args.x.stride + i).v : 0.0;
  const bool is_there = block < args.out_.n_cols_padded / kBlockCols;
  write_block(args.out_, GROUP.y, block, y, args.flag, is_there);
}
