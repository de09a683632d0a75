// SHA-256 (FIPS 180-4): incremental in portable scalar code, and many equal leaves side by side in
// vector lanes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace edge {

using Sha256Digest = std::array<std::byte, 32>;

struct Sha256Start {
  uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
};

class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  // The digest of everything given to update(); the object must not be used afterwards.
  Sha256Digest finish();

 private:
  Sha256Start start_;
  uint64_t n_bytes_ = 0;
  std::byte pending_[64] = {};  // n_bytes_ % 64 bytes of an unfinished block
};

Sha256Digest sha256(std::span<const std::byte> bytes);

// Hashes consecutive leaves of `leaf_bytes` (the last may be shorter) into `digests`, 32 bytes
// each. Fastest for sha256_leaves_at_once() leaves of whole 64-byte blocks a call.
void sha256_leaves(std::span<const std::byte> bytes, size_t leaf_bytes,
                   std::span<std::byte> digests);
int sha256_leaves_at_once();

// lanes.n_lanes leaves of leaf_bytes (a multiple of 64) by one given version, for tests.
struct Sha256Lanes;
void sha256_side_by_side(const Sha256Lanes& lanes, const std::byte* bytes, size_t leaf_bytes,
                         std::byte* digests);

// 64 lower-case digits for a digest; two for every byte in general.
std::string to_hex(std::span<const std::byte> bytes);

}  // namespace edge
