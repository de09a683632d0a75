#include "base/xxh64.h"

#include <vector>

#include "doctest/doctest.h"

namespace edge {

TEST_CASE("XXH64 of every kind of length is that of the reference implementation") {
  const struct {
    size_t n_bytes;
    uint64_t hash;
  } kCases[] = {
      {0, 0xef46db3751d8e999},   {1, 0xf592c0c7639c4cb6},    {3, 0x22c08528601d4f27},
      {4, 0xfb1e5cf2f1ae4d95},   {7, 0x5613ac510496c04e},    {8, 0x57cb2b7521f3e21a},
      {12, 0x2f53b00266039e64},  {31, 0xe4a0e629e519a4ae},   {32, 0xcc6b8aaada790b2d},
      {33, 0x35ec49850475a832},  {63, 0xbf9f0ba3cf95b28a},   {64, 0x155ccce4bf32befc},
      {100, 0x4826e367566ea023}, {1000, 0x128da10cfbdc59d9},
  };
  for (const auto& [n_bytes, hash] : kCases) {
    std::vector<std::byte> bytes(n_bytes + 1);
    for (size_t i = 0; i < n_bytes; ++i) bytes[i + 1] = static_cast<std::byte>(i * 37 + 11);
    CHECK(xxh64(std::span(bytes).subspan(1)) == hash);  // at an odd address
  }
}

}  // namespace edge
