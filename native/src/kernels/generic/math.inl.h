// Transcendental functions with the same bits on every ISA: only +, -, *, / and fma by name.
//
// Part of the .inl.h files that are included once per ISA inside its namespace, after vec16.h,
// which gives V, I and their operations.
//
// exp is Cephes' expf (S. Moshier): 2^n * p(r) with |r| <= ln(2) / 2. cos and sin, which need f64,
// are in cos_sin.inl.h.
#pragma once

// Within 2 ulp; exp(0) == 1. Above 88.73 infinity, below -103.98 zero, subnormals kept; NaN stays.
EDGE_INLINE V exp(V x) {
  x = max(set1(-105.0f), min(set1(89.0f), x));  // this operand order lets NaN through
  const V n = round_even(mul(x, set1(0x1.715476p+0f)));
  V r = fma(n, set1(-0x1.62e400p-1f), x);  // ln(2) in two parts: n times the first is exact
  r = fma(n, set1(-0x1.7f7d1cp-20f), r);
  V p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), set1(1.0f));
  // Two factors, so that 2^n is never out of range and only the last product can round.
  const I exponent = to_int(n);
  const I first = sar(exponent, 1);
  const I bias = set1_i(127);
  const V scale0 = as_f(shl(add(first, bias), 23));
  const V scale1 = as_f(shl(add(sub(exponent, first), bias), 23));
  return mul(mul(p, scale0), scale1);
}

// x / (1 + exp(-x)); -0 below -88.73, where 1 + exp(-x) is infinite.
EDGE_INLINE V silu(V x) { return div(x, add(set1(1.0f), exp(neg(x)))); }

// Within 2 ulp: below 0.625 Cephes' tanhf, above 1 - 2 / (exp(2 |x|) + 1); NaN stays.
EDGE_INLINE V tanh(V x) {
  const V one = set1(1.0f);
  const V size = abs(x);
  const V z = mul(x, x);
  V p = set1(-5.70498872745e-3f);
  p = fma(p, z, set1(2.06390887954e-2f));
  p = fma(p, z, set1(-5.37397155531e-2f));
  p = fma(p, z, set1(1.33314422036e-1f));
  p = fma(p, z, set1(-3.33332819422e-1f));
  const V inner = fma(mul(x, z), p, x);
  const V outer = sub(one, div(set1(2.0f), add(exp(add(size, size)), one)));
  return select(cmp_lt(size, set1(0.625f)), inner, select(cmp_lt(x, zero()), neg(outer), outer));
}

// cap * tanh(x / cap).
EDGE_INLINE V softcapped(V x, V cap) { return mul(cap, tanh(div(x, cap))); }
