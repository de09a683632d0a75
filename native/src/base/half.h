// IEEE binary16 <-> f32, exact in both directions: round to nearest even, subnormals kept, overflow
// to infinity. The same bits as F16C and NEON for every input but the payload of a NaN.
#pragma once

#include "base/inline.h"
#include "base/plain_types.h"

namespace edge {

#if defined(__METAL_VERSION__)
EDGE_INLINE float half_to_float(uint16_t bits) { return float(as_type<half>(bits)); }
EDGE_INLINE uint16_t float_to_half(float value) { return as_type<uint16_t>(half(value)); }
#else
EDGE_INLINE float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  uint32_t bits = magnitude << 13;
  if (magnitude >= 0x7c00u) {
    bits |= 0x7f800000u;
  } else {
    float value;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p112f;  // moves the exponent bias from 15 to 127; exact, subnormals included
    memcpy(&bits, &value, sizeof bits);
  }
  bits |= sign;
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

EDGE_INLINE uint16_t float_to_half(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  uint32_t half;
  if (bits > 0x7f800000u) {
    half = 0x7e00u;
  } else if (bits >= 0x47800000u) {  // 2^16 and above
    half = 0x7c00u;
  } else if (bits < 0x38800000u) {  // below 2^-14: adding 0.5 puts the f16 subnormal ulp in bit 0
    float magnitude;
    memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;
    memcpy(&half, &magnitude, sizeof half);
    half -= 0x3f000000u;
  } else {  // nearest even on the 13 bits that go; a carry out of the mantissa is right, to inf too
    half = (bits + 0xfffu + ((bits >> 13) & 1u) - (112u << 23)) >> 13;
  }
  return static_cast<uint16_t>(half | sign);
}
#endif

}  // namespace edge
