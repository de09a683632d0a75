// V of one lane: a thread is a lane. So exp, silu, tanh and softcapped of the generic kernels are
// the device's, and have the CPU's bits. Reductions over 16 lanes are written where threads meet.
// Included after a dialect.
#pragma once

#include "backends/gpu/args.h"
#include "base/fma.h"
#include "base/half.h"
#include "kernels/scalar/lane.h"

namespace EDGE_DEVICE {

using namespace edge;
using namespace edge::gpu;

struct V {
  float v;
};
struct I {
  int32_t v;
};
struct M {
  bool v;
};

EDGE_INLINE V set1(float x) { return {x}; }
EDGE_INLINE V zero() { return {0.0f}; }
EDGE_INLINE I set1_i(int32_t x) { return {x}; }
EDGE_INLINE V add(V a, V b) { return {a.v + b.v}; }
EDGE_INLINE V sub(V a, V b) { return {a.v - b.v}; }
EDGE_INLINE V mul(V a, V b) { return {a.v * b.v}; }
EDGE_INLINE V div(V a, V b) { return {a.v / b.v}; }
EDGE_INLINE V fma(V a, V b, V c) { return {fma_exact(a.v, b.v, c.v)}; }
EDGE_INLINE V neg(V a) { return {scalar::lane_float(scalar::lane_bits(a.v) ^ 0x80000000u)}; }
EDGE_INLINE V abs(V a) { return {scalar::lane_float(scalar::lane_bits(a.v) & 0x7fffffffu)}; }
EDGE_INLINE V min(V a, V b) { return {a.v < b.v ? a.v : b.v}; }
EDGE_INLINE V max(V a, V b) { return {a.v > b.v ? a.v : b.v}; }
EDGE_INLINE V round_even(V a) { return {scalar::lane_round_even(a.v)}; }
EDGE_INLINE M cmp_lt(V a, V b) { return {a.v < b.v}; }
EDGE_INLINE V as_f(I a) { return {scalar::lane_float(static_cast<uint32_t>(a.v))}; }
EDGE_INLINE I to_int(V a) { return {scalar::lane_to_int(a.v)}; }
EDGE_INLINE I add(I a, I b) { return {a.v + b.v}; }
EDGE_INLINE I sub(I a, I b) { return {a.v - b.v}; }
EDGE_INLINE I shl(I a, int n) { return {static_cast<int32_t>(static_cast<uint32_t>(a.v) << n)}; }
EDGE_INLINE I sar(I a, int n) { return {a.v >> n}; }
EDGE_INLINE V select(M m, V a, V b) { return {m.v ? a.v : b.v}; }

#include "kernels/generic/activations.inl.h"

EDGE_INLINE float exp_of(float x) { return exp(V{x}).v; }

EDGE_FN int magnitude_bits(float x) { return static_cast<int>(scalar::lane_bits(x) & 0x7fffffffu); }
EDGE_FN float float_of(int bits) { return scalar::lane_float(static_cast<uint32_t>(bits)); }
EDGE_FN int larger(int a, int b) { return a > b ? a : b; }
EDGE_FN int smaller(int a, int b) { return a < b ? a : b; }

// The largest over a warp, and the sum.
EDGE_FN int warp_max(int x) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) x = larger(EDGE_XOR_LANE(x, lanes), x);
  return x;
}
EDGE_FN int warp_sum(int x) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) x += EDGE_XOR_LANE(x, lanes);
  return x;
}

}  // namespace EDGE_DEVICE
