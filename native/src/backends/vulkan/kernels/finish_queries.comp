#version 460
#include "heads.glsl"

void main() {
  load_head();
  turn_head();
  const int head_dim = args.heads.head_dim;
  float_ptr q = AT(args.q, GROUP.y * args.heads.stride + int64_t(GROUP.x) * head_dim);
  for (int c = THREAD; c < head_dim; c += kHeadThreads) AT(q, c).v = head[c];
}
