#version 460
#include "numbers.glsl"
EDGE_ARGS(EmbedArgs)
layout(local_size_x = kElementThreads) in;

void main() {
  const int64_t col = int64_t(GROUP.x) * kElementThreads + THREAD;
  if (col >= args.x.n_cols) return;
  float_ptr table = AS(float, args.table.strips);
  float_ptr to = AT(args.x.data, GROUP.y * args.x.stride + col);
  to.v = add(to.v, AT(table, AT(args.rows.rows, GROUP.y).v.position * args.x.n_cols + col).v);
}
