// The activation functions of feed-forward networks (FfnAct of backends/op_kinds.h), lane by lane.
//
// Included once per ISA inside its namespace, after vec16.h, and by GPU kernels, whose V is one
// lane.
#pragma once

#include "kernels/generic/math.inl.h"

// erf within 2 ulp. Up to 1 x + x P(x^2), above 1 - exp(Q(|x|)): polynomials fitted on Chebyshev
// nodes to erf(x) / x - 1 and to log(1 - erf(x)) on 1..4; beyond 4 it is 1.
EDGE_INLINE V erf(V x) {
  const V one = set1(1.0f);
  const V size = abs(x);
  const V z = mul(x, x);
  V p = set1(0x1.4a9dacp-14f);
  p = fma(p, z, set1(-0x1.a46b40p-11f));
  p = fma(p, z, set1(0x1.541636p-8f));
  p = fma(p, z, set1(-0x1.b7fb38p-6f));
  p = fma(p, z, set1(0x1.ce2d18p-4f));
  p = fma(p, z, set1(-0x1.81273ep-2f));
  p = fma(p, z, set1(0x1.06eba8p-3f));
  const V inner = fma(p, x, x);
  const V t = min(set1(4.0f), size);  // this operand order lets NaN through
  V q = set1(-1.3309389942151029e-05f);
  q = fma(q, t, set1(0.0003175720339640975f));
  q = fma(q, t, set1(-0.0034368676133453846f));
  q = fma(q, t, set1(0.022621985524892807f));
  q = fma(q, t, set1(-0.10331898182630539f));
  q = fma(q, t, set1(-0.6390933394432068f));
  q = fma(q, t, set1(-1.125925898551941f));
  q = fma(q, t, set1(-0.0007569686276838183f));
  const V outer = sub(one, exp(q));
  return select(cmp_lt(size, one), inner, select(cmp_lt(x, zero()), neg(outer), outer));
}

struct Silu {
  static EDGE_MEMBER_INLINE V of(V x) { return silu(x); }
};
struct Gelu {
  static EDGE_MEMBER_INLINE V of(V x) {
    const V phi = add(set1(1.0f), erf(mul(x, set1(0.70710678f))));
    return mul(mul(set1(0.5f), x), phi);
  }
};
struct GeluTanh {
  static EDGE_MEMBER_INLINE V of(V x) {
    const V cubic = mul(mul(set1(0.044715f), x), mul(x, x));
    const V phi = add(set1(1.0f), tanh(mul(set1(0.79788456f), add(x, cubic))));
    return mul(mul(set1(0.5f), x), phi);
  }
};
struct Relu {
  static EDGE_MEMBER_INLINE V of(V x) { return max(zero(), x); }  // lets NaN through
};
