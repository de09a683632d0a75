// 8-bit floats E4M3 as the PTX ISA has them: a sign, four bits of exponent with bias 7, three of
// mantissa; no infinities, one NaN of either sign, at most 448.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

namespace cuda_on_cpu {

constexpr uint8_t kE4m3Nan = 0x7f, kE4m3Largest = 0x7e;

inline float e4m3_value(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 0x7f) == kE4m3Nan) return std::numeric_limits<float>::quiet_NaN();
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return code < 0x80 ? magnitude : -magnitude;
}

// Of all codes.
inline const std::array<float, 256>& e4m3_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> all;
    for (size_t code = 0; code < all.size(); ++code) {
      all[code] = e4m3_value(static_cast<uint8_t>(code));
    }
    return all;
  }();
  return values;
}

// cvt.rn.satfinite: the nearest, ties to an even code.
inline uint8_t nearest_e4m3(float x) {
  const uint8_t sign = std::signbit(x) ? 0x80 : 0;
  const float magnitude = std::fabs(x);
  if (std::isnan(x)) return kE4m3Nan;
  if (magnitude >= e4m3_value(kE4m3Largest)) return sign | kE4m3Largest;
  int exponent = -6;  // of the number's binade, of which subnormal numbers have the last
  if (magnitude >= 0x1p-6f) exponent = std::ilogb(magnitude);
  const float steps = std::nearbyint(std::ldexp(magnitude, 3 - exponent));  // of 2^(exponent - 3)
  const int code = static_cast<int>(steps) + 8 * (exponent + 6);
  return static_cast<uint8_t>(sign | code);
}

}  // namespace cuda_on_cpu
