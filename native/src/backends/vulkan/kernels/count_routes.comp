#version 460
#include "dialect.glsl"
EDGE_ARGS(CountRoutesArgs)
layout(local_size_x = kRowThreads) in;

void main() {
  for (int expert = THREAD; expert < args.n_experts; expert += kRowThreads) {
    uint64_t n = AT(args.n_routed, expert).v;
    for (int i = 0; i < args.n_pairs; ++i) n += AT(args.ids, i).v == expert ? 1ul : 0ul;
    AT(args.n_routed, expert).v = n;
  }
}
