#version 460
#include "numbers.glsl"
#include "short_conv.glsl"
layout(local_size_x = kElementThreads) in;

void main() {
  const int64_t i = int64_t(GROUP.x) * kElementThreads + THREAD;
  if (i >= args.n_cols) return;
  Row_ptr row = AT(args.rows.rows, GROUP.y);
  float_ptr b = AT(args.bcx, GROUP.y * args.stride);
  AT(state_of(row.v.sequence, row.v.slot), i).v = mul(AT(b, i).v, AT(b, 2 * args.n_cols + i).v);
}
