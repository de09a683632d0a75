// fma_exact: a * b + c with one rounding, on every CPU and without libm.
//
// The product of two floats is exact in f64. The f64 sum with c is made exact enough by rounding it
// to odd (S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums", 2008): 53 >= 24 +
// 2 bits, so the last rounding to f32 is that of the exact value, subnormals and overflow included.
#pragma once

#include "base/inline.h"
#include "base/plain_types.h"

namespace edge {

#if defined(__METAL_VERSION__)
EDGE_INLINE float fma_exact(float a, float b, float c) { return ::metal::fma(a, b, c); }
#else
// p + c rounded to odd. Infinities and NaN behave as in p + c.
EDGE_INLINE double add_round_to_odd(double p, double c) {
  const double s = p + c;
  const double c_part = s - p;  // Knuth's TwoSum: s + error == p + c exactly
  const double error = (p - (s - c_part)) + (c - c_part);
  uint64_t bits;
  memcpy(&bits, &s, sizeof bits);
  const bool is_inexact = error < 0 || error > 0;  // false for NaN, that is for infinite sums
  if (is_inexact && (bits & 1) == 0) bits += (error > 0) == (s > 0) ? 1 : ~uint64_t{0};
  double odd;
  memcpy(&odd, &bits, sizeof odd);
  return odd;
}

EDGE_INLINE float fma_by_double(float a, float b, float c) {
  return static_cast<float>(
      add_round_to_odd(static_cast<double>(a) * static_cast<double>(b), static_cast<double>(c)));
}

// Uses the instruction only where the compile target has one: __builtin_fmaf would call libm else.
EDGE_INLINE float fma_exact(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#elif defined(__FMA__) || defined(__FP_FAST_FMAF)
  return __builtin_fmaf(a, b, c);
#else
  return fma_by_double(a, b, c);
#endif
}
#endif

}  // namespace edge
