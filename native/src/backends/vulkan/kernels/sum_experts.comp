#version 460
#include "numbers.glsl"
EDGE_ARGS(SumExpertsArgs)
layout(local_size_x = kElementThreads) in;

void main() {
  const int64_t i = int64_t(GROUP.x) * kElementThreads + THREAD;
  if (i >= args.n) return;
  float sum = 0.0;
  for (int pair = GROUP.y * args.n_used; pair < (GROUP.y + 1) * args.n_used; ++pair) {
    sum = fma_exact(AT(args.pairs, pair * args.stride + i).v, AT(args.weights, pair).v, sum);
  }
  if (!IS_NULL(args.shared_)) {
    const float weight = AT(args.shared_weights, GROUP.y * kTileRows).v;
    sum = fma_exact(AT(args.shared_, GROUP.y * args.stride + i).v, weight, sum);
  }
  AT(args.y, GROUP.y * args.y_stride + i).v = sum;
}
