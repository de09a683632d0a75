#version 460
#include "functions.glsl"
EDGE_ARGS(LogitsArgs)
layout(local_size_x = kElementThreads) in;

void main() {
  const int64_t i = int64_t(GROUP.x) * kElementThreads + THREAD;
  if (i >= args.n) return;
  float_ptr x = AT(args.logits, GROUP.y * args.stride + i);
  if (magnitude_bits(x.v) >= 0x7f800000) args.flag.v = 1;
  if (args.softcap > 0.0) x.v = softcapped(x.v, args.softcap);
}
