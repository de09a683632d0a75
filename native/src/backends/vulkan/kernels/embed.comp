#version 460
#include "embed.glsl"

void main() {
  const int64_t col = int64_t(GROUP.x) * kElementThreads + THREAD;
  if (col >= args.x.n_cols) return;
  const float value = element(args.table, AT(args.rows.rows, GROUP.y).v.token, col);
  float_ptr to = AT(args.x.data, GROUP.y * args.x.stride + col);
  to.v = args.scale == 1.0 ? value : mul(value, args.scale);
}
