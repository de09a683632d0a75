// exp, tanh, erf and what is made of them: kernels/generic/math.inl.h and activations.inl.h, step by
// step, so that they have the CPU's bits.
#include "numbers.glsl"

float exp_of(float x) {
  x = 89.0 < x ? 89.0 : x;
  x = -105.0 > x ? -105.0 : x;  // NaN stays
  const float n = round_even(mul(x, 1.44269502));
  float r = fma_exact(n, -0.693145752, x);
  r = fma_exact(n, -1.42860677e-06, r);
  float p = 1.9875691500e-4;
  p = fma_exact(p, r, 1.3981999507e-3);
  p = fma_exact(p, r, 8.3334519073e-3);
  p = fma_exact(p, r, 4.1665795894e-2);
  p = fma_exact(p, r, 1.6666665459e-1);
  p = fma_exact(p, r, 5.0000001201e-1);
  p = add(fma_exact(p, mul(r, r), r), 1.0);
  const int exponent = to_int(n);
  const int first = exponent >> 1;
  const float scale0 = intBitsToFloat((first + 127) << 23);
  const float scale1 = intBitsToFloat((exponent - first + 127) << 23);
  return mul(mul(p, scale0), scale1);
}

float negated(float x) { return uintBitsToFloat(floatBitsToUint(x) ^ 0x80000000u); }
float size_of(float x) { return uintBitsToFloat(magnitude_of(x)); }

float tanh_of(float x) {
  const float size = size_of(x);
  const float z = mul(x, x);
  if (size < 0.625) {
    float p = -5.70498872745e-3;
    p = fma_exact(p, z, 2.06390887954e-2);
    p = fma_exact(p, z, -5.37397155531e-2);
    p = fma_exact(p, z, 1.33314422036e-1);
    p = fma_exact(p, z, -3.33332819422e-1);
    return fma_exact(mul(x, z), p, x);
  }
  const float outer = sub(1.0, div(2.0, add(exp_of(add(size, size)), 1.0)));
  return x < 0.0 ? negated(outer) : outer;
}

float softcapped(float x, float cap) { return mul(cap, tanh_of(div(x, cap))); }

float erf_of(float x) {
  const float size = size_of(x);
  if (size < 1.0) {
    const float z = mul(x, x);
    float p = 7.88249745e-05;
    p = fma_exact(p, z, -0.000801885501);
    p = fma_exact(p, z, 0.00518931216);
    p = fma_exact(p, z, -0.0268543288);
    p = fma_exact(p, z, 0.112835974);
    p = fma_exact(p, z, -0.37612626);
    p = fma_exact(p, z, 0.128379166);
    return fma_exact(p, x, x);
  }
  const float t = 4.0 < size ? 4.0 : size;
  float q = -1.3309389942151029e-05;
  q = fma_exact(q, t, 0.0003175720339640975);
  q = fma_exact(q, t, -0.0034368676133453846);
  q = fma_exact(q, t, 0.022621985524892807);
  q = fma_exact(q, t, -0.10331898182630539);
  q = fma_exact(q, t, -0.6390933394432068);
  q = fma_exact(q, t, -1.125925898551941);
  q = fma_exact(q, t, -0.0007569686276838183);
  const float outer = sub(1.0, exp_of(q));
  return x < 0.0 ? negated(outer) : outer;
}

// FfnAct
float activated(uint act, float x) {
  if (act == 0u) return div(x, add(1.0, exp_of(negated(x))));
  if (act == 3u) return 0.0 > x ? 0.0 : x;
  float phi;
  if (act == 1u) {
    phi = add(1.0, erf_of(mul(x, 0.70710678)));
  } else {
    const float cubic = mul(mul(0.044715, x), mul(x, x));
    phi = add(1.0, tanh_of(mul(0.79788456, add(x, cubic))));
  }
  return mul(mul(0.5, x), phi);
}
