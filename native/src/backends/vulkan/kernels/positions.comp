#version 460
#include "embed.glsl"

void main() {
  const int64_t col = int64_t(GROUP.x) * kElementThreads + THREAD;
  if (col >= args.x.n_cols) return;
  float_ptr to = AT(args.x.data, GROUP.y * args.x.stride + col);
  to.v = add(to.v, element(args.table, AT(args.rows.rows, GROUP.y).v.position, col));
}
