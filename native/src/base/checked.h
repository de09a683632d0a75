// Checked 64-bit arithmetic for every length that comes from outside.
#pragma once

#include <cstdint>
#include <optional>

namespace edge {

inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  const uint64_t sum = a + b;
  if (sum < a) return std::nullopt;
  return sum;
}

inline std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  if (a != 0 && b > UINT64_MAX / a) return std::nullopt;
  return a * b;
}

// The smallest multiple of `unit` that is >= a; unit > 0.
inline std::optional<uint64_t> checked_round_up(uint64_t a, uint64_t unit) {
  const uint64_t rest = a % unit;
  return rest == 0 ? std::optional<uint64_t>(a) : checked_add(a, unit - rest);
}

}  // namespace edge
