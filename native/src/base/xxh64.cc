#include "base/xxh64.h"

#include <array>
#include <bit>
#include <cstring>

namespace edge {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87ull;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4Full;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9ull;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63ull;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5ull;
constexpr size_t kStripeBytes = 32;  // four lanes of 8 bytes

static_assert(std::endian::native == std::endian::little);

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

uint64_t round(uint64_t lane, uint64_t input) {
  return std::rotl(lane + input * kPrime2, 31) * kPrime1;
}

uint64_t merged(uint64_t hash, uint64_t lane) {
  return (hash ^ round(0, lane)) * kPrime1 + kPrime4;
}

uint64_t hash_stripes(std::span<const std::byte> bytes) {
  std::array<uint64_t, 4> lanes{kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
  for (size_t at = 0; at + kStripeBytes <= bytes.size(); at += kStripeBytes) {
    for (size_t i = 0; i < lanes.size(); ++i) {
      lanes[i] = round(lanes[i], load<uint64_t>(bytes.data() + at + 8 * i));
    }
  }
  uint64_t hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) +
                  std::rotl(lanes[3], 18);
  for (const uint64_t lane : lanes) hash = merged(hash, lane);
  return hash;
}

}  // namespace

uint64_t xxh64(std::span<const std::byte> bytes) {
  uint64_t hash = bytes.size() >= kStripeBytes ? hash_stripes(bytes) : kPrime5;
  hash += bytes.size();
  const std::byte* at = bytes.data() + bytes.size() / kStripeBytes * kStripeBytes;
  size_t n_left = bytes.size() % kStripeBytes;
  for (; n_left >= 8; at += 8, n_left -= 8) {
    hash = std::rotl(hash ^ round(0, load<uint64_t>(at)), 27) * kPrime1 + kPrime4;
  }
  if (n_left >= 4) {
    hash = std::rotl(hash ^ load<uint32_t>(at) * kPrime1, 23) * kPrime2 + kPrime3;
    at += 4;
    n_left -= 4;
  }
  for (; n_left > 0; ++at, --n_left) {
    hash = std::rotl(hash ^ std::to_integer<uint64_t>(*at) * kPrime5, 11) * kPrime1;
  }
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

}  // namespace edge
