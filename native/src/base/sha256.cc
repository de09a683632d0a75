#include "base/sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/cpu_info.h"
#include "base/sha256_lanes.h"

namespace edge {

extern const uint32_t kSha256Round[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

namespace {

uint32_t load_be32(const std::byte* p) {
  return std::to_integer<uint32_t>(p[0]) << 24 | std::to_integer<uint32_t>(p[1]) << 16 |
         std::to_integer<uint32_t>(p[2]) << 8 | std::to_integer<uint32_t>(p[3]);
}

void store_be32(uint32_t v, std::byte* p) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<std::byte>(v >> (24 - 8 * i));
}

// FIPS 180-4 section 6.2.2 over n_blocks of 64 bytes.
void compress(uint32_t state[8], const std::byte* blocks, size_t n_blocks) {
  for (; n_blocks > 0; --n_blocks, blocks += 64) {
    uint32_t w[64];
    for (int t = 0; t < 16; ++t) w[t] = load_be32(blocks + 4 * t);
    for (int t = 16; t < 64; ++t) {
      const uint32_t x = w[t - 15];
      const uint32_t y = w[t - 2];
      const uint32_t sigma0 = std::rotr(x, 7) ^ std::rotr(x, 18) ^ (x >> 3);
      const uint32_t sigma1 = std::rotr(y, 17) ^ std::rotr(y, 19) ^ (y >> 10);
      w[t] = sigma1 + w[t - 7] + sigma0 + w[t - 16];
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int t = 0; t < 64; ++t) {
      const uint32_t sum1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
      const uint32_t t1 = h + sum1 + ((e & f) ^ (~e & g)) + kSha256Round[t] + w[t];
      const uint32_t sum0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
      const uint32_t t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g;
      g = f;
      f = e;
      e = d + t1;
      d = c;
      c = b;
      b = a;
      a = t1 + t2;
    }
    const uint32_t add[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state[i] += add[i];
  }
}

}  // namespace

void Sha256::update(std::span<const std::byte> bytes) {
  const size_t n_pending = n_bytes_ % 64;
  n_bytes_ += bytes.size();
  if (n_pending > 0) {
    const size_t take = std::min(64 - n_pending, bytes.size());
    std::copy_n(bytes.begin(), take, pending_ + n_pending);
    bytes = bytes.subspan(take);
    if (n_pending + take < 64) return;
    compress(start_.state, pending_, 1);
  }
  const size_t n_blocks = bytes.size() / 64;
  compress(start_.state, bytes.data(), n_blocks);
  const auto rest = bytes.subspan(n_blocks * 64);
  std::copy(rest.begin(), rest.end(), pending_);
}

Sha256Digest Sha256::finish() {
  const uint64_t n_bits = n_bytes_ * 8;
  std::byte tail[72] = {std::byte{0x80}};
  const size_t n_zeros = (119 - n_bytes_ % 64) % 64;  // so that the length ends a block
  for (int i = 0; i < 8; ++i) {
    tail[1 + n_zeros + static_cast<size_t>(i)] = static_cast<std::byte>(n_bits >> (56 - 8 * i));
  }
  update({tail, 1 + n_zeros + 8});
  Sha256Digest digest;
  for (size_t i = 0; i < 8; ++i) store_be32(start_.state[i], digest.data() + 4 * i);
  return digest;
}

Sha256Digest sha256(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

namespace {

// The widest version this CPU runs; null where there is none.
const Sha256Lanes* widest_lanes() {
#if defined(__GNUC__)
#if defined(__x86_64__)
  if (cpu_features().avx512bw) return &kSha256Lanes16;
  if (cpu_features().avx2) return &kSha256Lanes8;
#endif
  return &kSha256Lanes4;
#else
  return nullptr;
#endif
}

}  // namespace

void sha256_side_by_side(const Sha256Lanes& lanes, const std::byte* bytes, size_t leaf_bytes,
                         std::byte* digests) {
  uint32_t states[kMaxSha256Lanes][8];
  const uint8_t* messages[kMaxSha256Lanes];
  const Sha256Start start;
  for (int lane = 0; lane < lanes.n_lanes; ++lane) {
    std::copy_n(start.state, 8, states[lane]);
    messages[lane] =
        reinterpret_cast<const uint8_t*>(bytes) + static_cast<size_t>(lane) * leaf_bytes;
  }
  lanes.compress(states, messages, leaf_bytes / 64);
  std::byte last[64] = {std::byte{0x80}};  // leaves are whole blocks, so the padding is one more
  for (int i = 0; i < 8; ++i) {
    last[56 + i] = static_cast<std::byte>(uint64_t{leaf_bytes} * 8 >> (56 - 8 * i));
  }
  std::fill_n(messages, lanes.n_lanes, reinterpret_cast<const uint8_t*>(last));
  lanes.compress(states, messages, 1);
  for (int lane = 0; lane < lanes.n_lanes; ++lane) {
    for (int i = 0; i < 8; ++i) store_be32(states[lane][i], digests + 32 * lane + 4 * i);
  }
}

int sha256_leaves_at_once() {
  const Sha256Lanes* lanes = widest_lanes();
  return lanes == nullptr ? 1 : lanes->n_lanes;
}

void sha256_leaves(std::span<const std::byte> bytes, size_t leaf_bytes,
                   std::span<std::byte> digests) {
  const Sha256Lanes* lanes = widest_lanes();
  const size_t group_bytes =
      lanes == nullptr ? 0 : static_cast<size_t>(lanes->n_lanes) * leaf_bytes;
  while (group_bytes > 0 && leaf_bytes % 64 == 0 && bytes.size() >= group_bytes) {
    sha256_side_by_side(*lanes, bytes.data(), leaf_bytes, digests.data());
    bytes = bytes.subspan(group_bytes);
    digests = digests.subspan(32 * static_cast<size_t>(lanes->n_lanes));
  }
  for (size_t at = 0; at < bytes.size(); at += leaf_bytes) {
    const Sha256Digest digest = sha256(bytes.subspan(at, std::min(leaf_bytes, bytes.size() - at)));
    std::copy(digest.begin(), digest.end(), digests.begin());
    digests = digests.subspan(digest.size());
  }
}

std::string to_hex(std::span<const std::byte> bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::byte b : bytes) {
    text += kDigits[std::to_integer<unsigned>(b >> 4)];
    text += kDigits[std::to_integer<unsigned>(b & std::byte{15})];
  }
  return text;
}

}  // namespace edge
