// SHA-256 (FIPS 180-4): portable scalar code, constant memory, incremental.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace edge {

using Sha256Digest = std::array<std::byte, 32>;

class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  // The digest of everything given to update(); the object must not be used afterwards.
  Sha256Digest finish();

 private:
  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint64_t n_bytes_ = 0;
  std::byte pending_[64] = {};  // n_bytes_ % 64 bytes of an unfinished block
};

Sha256Digest sha256(std::span<const std::byte> bytes);

// Hashes consecutive leaves of `leaf_bytes` (the last may be shorter) into `digests`, 32 bytes
// each. The leaves are independent: an implementation with hardware SHA or one that hashes many
// leaves side by side in vector lanes belongs behind this function and nowhere else.
void sha256_leaves(std::span<const std::byte> bytes, size_t leaf_bytes,
                   std::span<std::byte> digests);

// 64 lower-case digits for a digest; two for every byte in general.
std::string to_hex(std::span<const std::byte> bytes);

}  // namespace edge
