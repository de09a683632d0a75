#version 460
#include "numbers.glsl"
EDGE_ARGS(AddPairsArgs)
layout(local_size_x = kElementThreads) in;

void main() {
  const int64_t i = int64_t(GROUP.x) * kElementThreads + THREAD;
  if (i >= args.n) return;
  float_ptr value = AT(args.parts, 2 * GROUP.y * args.n);
  AT(args.y, GROUP.y * args.stride + i).v = add(AT(value, i).v, AT(value, args.n + i).v);
}
