// Transcendental functions with the same bits on every ISA: only +, -, *, / and fma by name.
//
// Part of the .inl.h files that are included once per ISA inside its namespace, after vec16.h,
// which gives V, I and their operations.
//
// exp is Cephes' expf (S. Moshier): 2^n * p(r) with |r| <= ln(2) / 2. cos and sin work on one f32
// angle in f64 with the polynomials of FreeBSD's k_cosf.c and k_sinf.c (D. Hough, B. D. Evans).
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

struct CosSin {
  float cos;
  float sin;
};

// Correctly rounded but for some near-halfway cases; |angle| < 2^31.
EDGE_INLINE CosSin cos_sin(float angle) {
  const double x = static_cast<double>(angle);
  constexpr double kToInt = 0x1.8p52;  // adding it leaves round_even(x) in the low mantissa bits
  const double shifted = x * 0x1.45f306dc9c883p-1 + kToInt;
  const double n = shifted - kToInt;
  uint64_t quadrant;
  memcpy(&quadrant, &shifted, sizeof quadrant);
  // pi / 2 in parts of 21, 21 and 53 bits: the first two products and differences are exact.
  double r = x - n * 0x1.921fbp+0;
  r = r - n * 0x1.5110bp-22;
  r = r - n * 0x1.18469898cc517p-44;
  const double z = r * r;
  const double sin_r = r + r * z *
                               ((-0x15555554cbac77.0p-55 + z * 0x111110896efbb2.0p-59) +
                                z * z * (-0x1a00f9e2cae774.0p-65 + z * 0x16cd878c3b46a7.0p-71));
  const double cos_r = ((1.0 + z * -0x1ffffffd0c5e81.0p-54) + z * z * 0x155553e1053a42.0p-57) +
                       z * z * z * (-0x16c087e80f1e27.0p-62 + z * 0x199342e0ee5069.0p-68);
  const double even_sin = (quadrant & 2) != 0 ? -sin_r : sin_r;
  const double even_cos = (quadrant & 2) != 0 ? -cos_r : cos_r;
  if ((quadrant & 1) == 0) return {static_cast<float>(even_cos), static_cast<float>(even_sin)};
  return {static_cast<float>(-even_sin), static_cast<float>(even_cos)};
}
