#version 460
#include "residual.glsl"
EDGE_ARGS(AddResidualArgs)
layout(local_size_x = kRowThreads) in;

void main() {
  const int64_t first = GROUP.x * args.x.stride;
  add_more(args.more, AT(args.x.data, first), first, args.x.n_cols);
}
