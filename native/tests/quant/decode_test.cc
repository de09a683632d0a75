// Decoding against tiles built by hand from the words of docs/FORMAT.md, one byte at a time.
#include "quant/decode.h"

#include <cstring>
#include <vector>

#include "base/half.h"
#include "doctest/doctest.h"
#include "quant/tiles.h"

namespace edge {
namespace {

// Any index and scale byte as a function of place, so that a swap of two places shows.
int index_at(int row, int k, int n_levels) { return (row * 37 + k * 11 + row * k) % n_levels; }
uint8_t scale_byte_at(int row, int k, int group_k) {
  return static_cast<uint8_t>(row * 53 + (k / group_k) * 101 + 7);
}
// L4_32, L8_32 and K4_32: scale and zero point or minimum of a group.
uint16_t half_at(int row, int k) { return static_cast<uint16_t>(0x2000 + row * 67 + k / 32 * 9); }
int zero_at(int row, int k) { return (row * 29 + k / 32 * 113) & 255; }
float d_row_at(int row) { return 0.001f * static_cast<float>(row + 1); }

int n_levels(Format format) {
  if (format == Format::kE2_16) return 4;
  if (format == Format::kE3_32) return 8;
  if (format == Format::kE6_16) return 64;
  return format == Format::kE8_32 || format == Format::kL8_32 ? 256 : 16;
}
int group_k(Format format) {
  return format == Format::kE3_32 || format == Format::kE4_32 || format == Format::kE8_32 ? 32 : 16;
}

float expected_weight(Format format, int row, int k) {
  if (format == Format::kF16) {
    return half_to_float(static_cast<uint16_t>(0x3000 + row * 288 + k));
  }
  const int q = index_at(row, k, n_levels(format));
  if (format == Format::kL4_32) {
    return half_to_float(half_at(row, k)) * static_cast<float>(q - zero_at(row, k));
  }
  if (format == Format::kL8_32) {
    return half_to_float(half_at(row, k)) * static_cast<float>(q - 128);
  }
  if (format == Format::kK4_32) {
    const float d = half_to_float(half_at(row, k / 256 * 32));
    const float dmin = half_to_float(half_at(row + 5, k / 256 * 32));
    const auto sc = static_cast<float>(scale_byte_at(row, k, 32));
    return (d * sc) * static_cast<float>(q) - dmin * static_cast<float>(zero_at(row, k));
  }
  const uint8_t sc = scale_byte_at(row, k, group_k(format));
  int s = (sc & 0xFE) - 127;
  int v = q - n_levels(format) / 2;
  if (format == Format::kE2_16) {
    constexpr int kLevels[] = {0, 13, 22, 31};
    s = (sc & 0xF8) - 124;
    v = kLevels[q] - (24 - 2 * (sc & 7));
  }
  if (format == Format::kE3_32) {
    constexpr int kLevels[] = {0, 14, 23, 31, 38, 45, 53, 63};
    s = (sc & 0xFC) - 126;
    v = kLevels[q] - (40 - 4 * (sc & 3));
  }
  if (n_levels(format) == 16) {
    constexpr int kLut0[] = {-64, -52, -42, -32, -24, -18, -11, -5, 0, 6, 12, 19, 26, 34, 44, 56};
    v = kLut0[q] + 2 * (sc & 1);
  }
  return d_row_at(row) * static_cast<float>(s * v);
}

void put(std::vector<std::byte>& bytes, size_t at, int value) {
  bytes[at] = bytes[at] | static_cast<std::byte>(value);
}

void put_half(std::vector<std::byte>& bytes, size_t at, uint16_t half) {
  bytes[at] = static_cast<std::byte>(half & 255);
  bytes[at + 1] = static_cast<std::byte>(half >> 8);
}

// K4_32: two heads before kTiles tiles.
void place_k4(std::vector<std::byte>& strip, int row, int k) {
  const size_t head = 64 + 64 * static_cast<size_t>(k / 256) + static_cast<size_t>(2 * row);
  put_half(strip, head, half_at(row, k / 256 * 32));
  put_half(strip, head + 32, half_at(row + 5, k / 256 * 32));
  const size_t tile = 64 + 2 * 64 + 288 * static_cast<size_t>(k / 32);
  strip[tile + static_cast<size_t>(row)] = static_cast<std::byte>(scale_byte_at(row, k, 32));
  strip[tile + 16 + static_cast<size_t>(row)] = static_cast<std::byte>(zero_at(row, k));
  const int t = k % 32 / 4;
  const int q = index_at(row, k, 16);
  put(strip, tile + 32 + static_cast<size_t>(64 * (t / 2) + row * 4 + k % 4),
      t % 2 == 0 ? q : q << 4);
}

// Writes weight (row, k) of a strip of kTiles tiles into its bytes.
void place(Format format, std::vector<std::byte>& strip, int row, int k) {
  if (format == Format::kK4_32) return place_k4(strip, row, k);
  const size_t tile = kStripHeaderBytes + static_cast<size_t>(k / 32) * tile_bytes(format);
  const int t = k % 32 / 4;  // quad
  const int b = row * 4 + k % 4;
  if (format == Format::kF16) {
    const int bits = 0x3000 + row * 288 + k;
    const size_t at = tile + static_cast<size_t>(2 * (16 * (k % 32) + row));
    put(strip, at, bits & 255);
    put(strip, at + 1, bits >> 8);
    return;
  }
  if (format == Format::kL4_32) {
    const size_t scale = tile + static_cast<size_t>(2 * row);
    const size_t nibble = tile + 48 + static_cast<size_t>(64 * (t / 2) + b);
    const int q = index_at(row, k, 16);
    put_half(strip, scale, half_at(row, k));
    strip[tile + 32 + static_cast<size_t>(row)] = static_cast<std::byte>(zero_at(row, k));
    put(strip, nibble, t % 2 == 0 ? q : q << 4);
    return;
  }
  if (format == Format::kL8_32) {
    put_half(strip, tile + static_cast<size_t>(2 * row), half_at(row, k));
    put(strip, tile + 32 + static_cast<size_t>(64 * t + b), index_at(row, k, 256));
    return;
  }
  const int n_scales = 16 * 32 / group_k(format);
  const int scale_at = k % 32 / group_k(format) * 16 + row;
  strip[tile + static_cast<size_t>(scale_at)] =
      static_cast<std::byte>(scale_byte_at(row, k, group_k(format)));
  const int q = index_at(row, k, n_levels(format));
  const size_t data = tile + static_cast<size_t>(n_scales);
  if (format == Format::kE8_32) {
    put(strip, data + static_cast<size_t>(64 * t + b), q);
    return;
  }
  if (format == Format::kE2_16) {
    put(strip, data + static_cast<size_t>(64 * (t / 4) + b), q << (2 * (t % 4)));
    return;
  }
  if (format == Format::kE3_32) {
    for (int bit = 0; bit < 3; ++bit) {
      const int value = q >> bit & 1;
      if (t < 6) {
        put(strip, data + static_cast<size_t>(64 * (t / 2) + b), value << (4 * (t % 2) + bit));
      } else {
        put(strip, data + static_cast<size_t>(64 * bit + b), value << (4 * (t % 2) + 3));
      }
    }
    return;
  }
  put(strip, data + static_cast<size_t>(64 * (t / 2) + b), t % 2 == 0 ? q & 15 : (q & 15) << 4);
  if (format == Format::kE6_16) {
    put(strip, data + static_cast<size_t>(256 + 64 * (t / 4) + b), (q >> 4) << (2 * (t % 4)));
  }
}

TEST_CASE("decode reads every byte of every format from its documented place") {
  constexpr int kTiles = 9;   // one more than shares a head
  constexpr int kCols = 284;  // the last tile is ragged
  for (const Format format :
       {Format::kE2_16, Format::kE3_32, Format::kE4_16, Format::kE4_32, Format::kE6_16,
        Format::kE8_32, Format::kK4_32, Format::kL4_32, Format::kL8_32, Format::kF16}) {
    CAPTURE(format_name(format));
    std::vector<std::byte> strip(strip_bytes(format, kTiles));
    for (int row = 0; row < 16; ++row) {
      const bool has_none = format == Format::kF16 || format == Format::kK4_32 ||
                            format == Format::kL4_32 || format == Format::kL8_32;
      const float d_row = has_none ? 1.0f : d_row_at(row);
      std::memcpy(strip.data() + 4 * row, &d_row, sizeof d_row);
      for (int k = 0; k < 32 * kTiles; ++k) place(format, strip, row, k);
    }
    const Tensor tensor = {.format = format,
                           .n_rows = 16,
                           .n_cols = kCols,
                           .data = strip.data(),
                           .n_bytes = strip.size()};
    std::vector<float> out(16 * kCols);
    decode_rows(tensor, 0, 16, out.data());
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < kCols; ++k) {
        CAPTURE(row);
        CAPTURE(k);
        REQUIRE(out[static_cast<size_t>(row * kCols + k)] == expected_weight(format, row, k));
      }
    }
  }
}

TEST_CASE("decode copies plain f32 rows") {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const Tensor tensor = {.format = Format::kF32,
                         .n_rows = 3,
                         .n_cols = 2,
                         .data = reinterpret_cast<const std::byte*>(values.data()),
                         .n_bytes = 24};
  float out[4];
  decode_rows(tensor, 1, 2, out);
  CHECK(out[0] == 3);
  CHECK(out[3] == 6);
}

}  // namespace
}  // namespace edge
