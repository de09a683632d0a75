#version 460
// What the host asks a device before it trusts it: fma, quotient and root of each triple
// (vulkan/numbers.cc).
#include "numbers.glsl"
struct NumbersArgs {
  float_ptr triples;  // [n][3]
  float_ptr results;  // [n][3]
  int32_t n;
};
EDGE_ARGS(NumbersArgs)
layout(local_size_x = 64) in;

void main() {
  const int i = GROUP.x * 64 + THREAD;
  if (i >= args.n) return;
  float_ptr x = AT(args.triples, 3 * i);
  float_ptr y = AT(args.results, 3 * i);
  AT(y, 0).v = fma_exact(AT(x, 0).v, AT(x, 1).v, AT(x, 2).v);
  AT(y, 1).v = div(AT(x, 0).v, AT(x, 1).v);
  AT(y, 2).v = square_root(uintBitsToFloat(magnitude_of(AT(x, 2).v)));
}
