// One lane of vec16.h in plain C++: bits, and rounding to integers without libm. For the scalar ISA
// and for the threads of a GPU.
#pragma once

#include "base/inline.h"
#include "base/plain_types.h"

namespace edge::scalar {

#if defined(__METAL_VERSION__)
EDGE_INLINE uint32_t lane_bits(float x) { return as_type<uint32_t>(x); }
EDGE_INLINE float lane_float(uint32_t bits) { return as_type<float>(bits); }
#else
EDGE_INLINE uint32_t lane_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
EDGE_INLINE float lane_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
#endif
EDGE_INLINE float lane_round_even(float x) {
  const float magnitude = lane_float(lane_bits(x) & 0x7fffffffu);
  if (!(magnitude < 0x1p23f)) return x;  // integers, infinities, NaN
  const float rounded = (magnitude + 0x1p23f) - 0x1p23f;
  return lane_float(lane_bits(rounded) | (lane_bits(x) & 0x80000000u));
}
EDGE_INLINE float lane_floor(float x) {
  const float rounded = lane_round_even(x);
  return rounded > x ? rounded - 1.0f : rounded;
}
EDGE_INLINE int32_t lane_to_int(float x) {
  const bool fits = x >= -0x1p31f && x < 0x1p31f;
  return fits ? static_cast<int32_t>(lane_round_even(x)) : -2147483647 - 1;
}

}  // namespace edge::scalar
