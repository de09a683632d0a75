// cos and sin of one f32 angle in f64, with the polynomials of FreeBSD's k_cosf.c and k_sinf.c
// (D. Hough, B. D. Evans). Included once per ISA inside its namespace: only +, - and * by name.
#pragma once

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
