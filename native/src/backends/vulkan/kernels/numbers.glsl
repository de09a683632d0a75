// Arithmetic with the CPU's bits on every driver: one operation a function, none of which may be
// fused with another. Vulkan lets `fma` round twice, and division and roots be off by a few units in
// the last place; here they are exact (IEEE 754, to nearest even), by integers.
#ifndef EDGE_NUMBERS_GLSL
#define EDGE_NUMBERS_GLSL

#include "dialect.glsl"

// Units in the last place that division and roots begin with an error of; 0 but in tests.
layout(constant_id = 9) const int kNudge = 0;

float add(float a, float b) {
  precise float sum = a + b;
  return sum;
}
float sub(float a, float b) {
  precise float difference = a - b;
  return difference;
}
float mul(float a, float b) {
  precise float product = a * b;
  return product;
}

#if defined(EDGE_FMA_FUSED)
float fma_exact(float a, float b, float c) {
  precise float sum = fma(a, b, c);
  return sum;
}
#else
// base/fma.h, fma_by_double
float fma_exact(float a, float b, float c) {
  precise double p = double(a) * double(b);
  precise double d = double(c);
  precise double s = p + d;
  precise double c_part = s - p;
  precise double p_part = s - c_part;
  precise double p_error = p - p_part;
  precise double c_error = d - c_part;
  precise double error = p_error + c_error;
  uint64_t bits = doubleBitsToUint64(s);
  const bool is_inexact = error < 0.0 || error > 0.0;
  if (is_inexact && (bits & 1ul) == 0ul) bits += (error > 0.0) == (s > 0.0) ? 1ul : ~0ul;
  return float(uint64BitsToDouble(bits));
}
#endif

uint magnitude_of(float x) { return floatBitsToUint(x) & 0x7fffffffu; }
int magnitude_bits(float x) { return int(magnitude_of(x)); }
float float_of(int bits) { return intBitsToFloat(bits); }
bool is_normal(float x) {
  const uint m = magnitude_of(x);
  return m >= 0x00800000u && m < 0x7f800000u;
}

// The float nearest to q 2^exponent, and a bit below it if there is a rest; q in [2^24, 2^27).
float rounded(uint q, bool has_rest, int exponent) {
  const int length = findMSB(q) + 1;
  const int least = -149 - exponent;  // places below a subnormal's last
  const int cut = larger(length - 24, least);
  if (cut > 27) return 0.0;
  uint kept = q >> cut;
  const uint rest = q & ((1u << cut) - 1u), middle = 1u << (cut - 1);
  const bool is_above = rest > middle || (rest == middle && (has_rest || (kept & 1u) != 0u));
  kept += is_above ? 1u : 0u;
  const int top = cut + exponent + 23 + 127;  // biased, of a normal number
  if (cut == least && kept < 0x00800000u) return uintBitsToFloat(kept);
  if (top + int(kept >> 24) >= 255) return uintBitsToFloat(0x7f800000u);
  return uintBitsToFloat((uint(top) << 23) + kept - 0x00800000u);
}

// a / b, rounded once. What is zero, subnormal or not finite is as the device divides it.
float div(float a, float b) {
  if (!is_normal(a) || !is_normal(b)) {
    precise float quotient = a / b;
    return quotient;
  }
  const uint m = floatBitsToUint(a) & 0x007fffffu | 0x00800000u;
  const uint n = floatBitsToUint(b) & 0x007fffffu | 0x00800000u;
  const int exponent = int(magnitude_of(a) >> 23) - int(magnitude_of(b) >> 23) - 25;
  // The mantissas' quotient times 2^25, from a guess; the guess is off by a few 2^-24 of it.
  precise float guess = float(m) / float(n);
  uint q = uint(mul(guess, 33554432.0)) + uint(4 * kNudge);
  int64_t rest = (int64_t(m) << 25) - int64_t(q) * int64_t(n);
  while (rest < 0l) {
    --q;
    rest += int64_t(n);
  }
  while (rest >= int64_t(n)) {
    ++q;
    rest -= int64_t(n);
  }
  const float size = rounded(q, rest != 0l, exponent);
  const uint sign = (floatBitsToUint(a) ^ floatBitsToUint(b)) & 0x80000000u;
  return uintBitsToFloat(floatBitsToUint(size) | sign);
}

// sqrt(x), rounded once, in the same way.
float square_root(float x) {
  if (!is_normal(x) || x < 0.0) return sqrt(x);
  const int biased = int(magnitude_of(x) >> 23);
  const int odd = (biased + 1) & 1;  // of the exponent without its bias, which is then even
  const uint64_t m = uint64_t(floatBitsToUint(x) & 0x007fffffu | 0x00800000u) << (27 + odd);
  uint q = uint(sqrt(float(m))) + uint(4 * kNudge);  // m in [2^50, 2^52)
  int64_t rest = int64_t(m) - int64_t(q) * int64_t(q);
  while (rest < 0l) {
    --q;
    rest += 2l * int64_t(q) + 1l;
  }
  while (rest > 2l * int64_t(q)) {
    rest -= 2l * int64_t(q) + 1l;
    ++q;
  }
  return rounded(q, rest != 0l, (biased - 127 - odd) / 2 - 25);
}

// kernels/scalar/lane.h
float round_even(float x) {
  const float size = uintBitsToFloat(magnitude_of(x));
  if (!(size < 8388608.0)) return x;
  const float nearest = sub(add(size, 8388608.0), 8388608.0);
  return uintBitsToFloat(floatBitsToUint(nearest) | (floatBitsToUint(x) & 0x80000000u));
}
int to_int(float x) {
  const bool fits = x >= -2147483648.0 && x < 2147483648.0;
  return fits ? int(round_even(x)) : -2147483647 - 1;
}

// base/half.h, without a subnormal float on the way, which a device may make zero.
float half_to_float(uint half_bits) {
  const uint sign = (half_bits & 0x8000u) << 16, size = half_bits & 0x7fffu;
  if (size < 0x0400u) {
    const float tiny = mul(float(size), 5.9604644775390625e-08);
    return uintBitsToFloat(floatBitsToUint(tiny) | sign);
  }
  const uint bits = (size << 13) + (size >= 0x7c00u ? 0x70000000u : 0x38000000u);
  return uintBitsToFloat(bits | sign);
}
uint float_to_half(float value) {
  const uint sign = floatBitsToUint(value) >> 16 & 0x8000u;
  const uint size = magnitude_of(value);
  uint result;
  if (size > 0x7f800000u) {
    result = 0x7e00u;
  } else if (size >= 0x47800000u) {
    result = 0x7c00u;
  } else if (size < 0x38800000u) {
    result = floatBitsToUint(add(uintBitsToFloat(size), 0.5)) - 0x3f000000u;
  } else {
    result = (size + 0xfffu + (size >> 13 & 1u) - (112u << 23)) >> 13;
  }
  return result | sign;
}

#endif
