// exp and log in double from additions, multiplications and divisions only, so that every IEEE 754
// machine gives the same bits (libm does not promise that). For sampling: relative error below
// 1e-14, which is far finer than the f32 logits it is fed. Knows nothing of tokens.
#pragma once

#include <bit>
#include <cstdint>

#include "base/inline.h"

namespace edge {

constexpr double kLn2 = 0.693147180559945309417;

// e^x for x <= 0; exactly 1 at 0 and 0 below -700. Branch-free, so that compilers vectorise loops.
EDGE_INLINE double exp_nonpositive(double x) {
  constexpr double kLog2E = 1.44269504088896340736;
  constexpr double kLn2High = 6.93147180369123816490e-01;  // 33 bits: n * kLn2High is exact
  constexpr double kLn2Low = 1.90821492927058770002e-10;
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  const double bounded = x < -700.0 ? -700.0 : x;
  const double shifted = bounded * kLog2E + kRound;
  const double n = shifted - kRound;
  const double r = (bounded - n * kLn2High) - n * kLn2Low;  // |r| <= ln2 / 2
  double p = 1.0 / 6227020800.0;                            // Taylor up to r^13 / 13!
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  // The low bits of `shifted` hold n in two's complement; moved up they are the exponent of 2^n.
  const uint64_t exponent = (std::bit_cast<uint64_t>(shifted) + 1023u) << 52;
  const double y = p * std::bit_cast<double>(exponent);
  return x < -700.0 ? 0.0 : y;
}

// ln x for normal x > 0.
EDGE_INLINE double log_positive(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int64_t exponent = static_cast<int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xFFFFFFFFFFFFFull) | (1023ull << 52));  // 1 <= m < 2
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0);  // |s| <= 0.1716; ln m = 2 artanh s
  const double z = s * s;
  double series = 0;
  for (int k = 21; k >= 1; k -= 2) series = series * z + 1.0 / k;
  return static_cast<double>(exponent) * kLn2 + 2.0 * s * series;
}

}  // namespace edge
