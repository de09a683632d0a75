#include "base/sha256.h"

#include <string>
#include <vector>

#include "base/cpu_info.h"
#include "base/sha256_lanes.h"
#include "doctest/doctest.h"

using namespace edge;

namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span<const char>(text));
}

std::string hex_of(const std::string& text) { return to_hex(sha256(bytes_of(text))); }

}  // namespace

// FIPS 180-4 examples and the NIST CAVP short and long message vectors.
TEST_CASE("the published test vectors hold") {
  CHECK(hex_of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(hex_of("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
               "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu") ==
        "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
  CHECK(hex_of(std::string(1000000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  CHECK(hex_of("\xd3") == "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1");
  CHECK(hex_of("\x11\xaf") == "5ca7133fa735326081558ac312c620eeca9970d1e70a4b95533d956f072d1f98");
}

TEST_CASE("lengths around a block boundary do not depend on how the input is cut") {
  for (const size_t n : {0, 1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 1000}) {
    std::string text(n, '\0');
    for (size_t i = 0; i < n; ++i) text[i] = static_cast<char>(i * 31);
    const Sha256Digest whole = sha256(bytes_of(text));
    for (const size_t step : {1, 3, 63, 64, 65, 200}) {
      Sha256 hash;
      for (size_t at = 0; at < n; at += step) {
        hash.update(bytes_of(text).subspan(at, std::min(step, n - at)));
      }
      CHECK(hash.finish() == whole);
    }
  }
}

TEST_CASE("leaves are hashed one by one, the last one short") {
  const std::string text(250, 'x');
  std::vector<std::byte> digests(3 * 32);
  sha256_leaves(bytes_of(text), 100, digests);
  CHECK(to_hex(std::span(digests).subspan(0, 32)) == hex_of(std::string(100, 'x')));
  CHECK(to_hex(std::span(digests).subspan(64, 32)) == hex_of(std::string(50, 'x')));
}

// Every vector version against the scalar code, on leaves that differ in every lane.
static void check_lanes(const Sha256Lanes& lanes) {
  constexpr size_t kLeaf = 64 * 5;
  std::string text(kLeaf * static_cast<size_t>(lanes.n_lanes), '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 2654435761u >> 13);
  std::vector<std::byte> digests(32 * static_cast<size_t>(lanes.n_lanes));
  sha256_side_by_side(lanes, bytes_of(text).data(), kLeaf, digests.data());
  for (size_t lane = 0; lane < static_cast<size_t>(lanes.n_lanes); ++lane) {
    CHECK(to_hex(std::span(digests).subspan(32 * lane, 32)) ==
          hex_of(text.substr(lane * kLeaf, kLeaf)));
  }
}

TEST_CASE("hashing side by side equals hashing one by one") {
#if defined(__GNUC__)
  check_lanes(kSha256Lanes4);
#if defined(__x86_64__)
  if (cpu_features().avx2) check_lanes(kSha256Lanes8);
  if (cpu_features().avx512bw) check_lanes(kSha256Lanes16);
  if (!cpu_features().avx512bw) MESSAGE("SKIP 16 lanes: this CPU lacks AVX-512");
#endif
#endif
  // A whole group, then some, then a short one.
  const size_t n_leaves = static_cast<size_t>(sha256_leaves_at_once()) + 2;
  const std::string text(n_leaves * 128 + 30, 'y');
  std::vector<std::byte> digests((n_leaves + 1) * 32);
  sha256_leaves(bytes_of(text), 128, digests);
  for (size_t leaf = 0; leaf <= n_leaves; ++leaf) {
    CHECK(to_hex(std::span(digests).subspan(32 * leaf, 32)) ==
          hex_of(text.substr(leaf * 128, 128)));
  }
}
