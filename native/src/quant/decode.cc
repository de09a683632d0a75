#include "quant/decode.h"

#include <cstring>

#include "base/half.h"
#include "quant/tiles.h"

namespace edge {

namespace {

// What is left of a tile when one row is looked at: the value of column k (0..31) is s * v, exact
// in f32 because |s * v| < 2^24, or f16.

int nibble(const uint8_t nibbles[4][64], int row, int k) {
  const uint8_t byte = nibbles[k / 8][4 * row + (k & 3)];
  return (k & 4) != 0 ? byte >> 4 : byte & 15;
}

int e4_level(const uint8_t nibbles[4][64], uint8_t sc, int row, int k) {
  return kLutE4[nibble(nibbles, row, k)] + kLutE4Shift * (sc & 1) - kLutE4Zero;
}

float weight(const TileE4_16& tile, int row, int k) {
  const uint8_t sc = tile.sc[k / 16][row];
  return static_cast<float>(group_scale(sc) * e4_level(tile.nibbles, sc, row, k));
}

float weight(const TileE4_32& tile, int row, int k) {
  const uint8_t sc = tile.sc[row];
  return static_cast<float>(group_scale(sc) * e4_level(tile.nibbles, sc, row, k));
}

float weight(const TileE6_16& tile, int row, int k) {
  const int quad = k / 4;
  const int high = tile.hi[quad / 4][4 * row + (k & 3)] >> (2 * (quad & 3)) & 3;
  const int v = (nibble(tile.nibbles, row, k) | high << 4) - kE6Zero;
  return static_cast<float>(group_scale(tile.sc[k / 16][row]) * v);
}

float weight(const TileE8_32& tile, int row, int k) {
  const int v = tile.quads[k / 4][4 * row + (k & 3)] - kE8Zero;
  return static_cast<float>(group_scale(tile.sc[row]) * v);
}

float weight(const TileF16& tile, int row, int k) { return half_to_float(tile.w[k][row]); }

template <class Tile>
void decode_row(const Tensor& tensor, int64_t row, float* out) {
  const size_t n_tiles = static_cast<size_t>(tensor.n_tiles());
  const size_t strip = static_cast<size_t>(row / kTileRows);
  const int lane = static_cast<int>(row % kTileRows);
  const std::byte* p = tensor.data + strip * (kStripHeaderBytes + n_tiles * sizeof(Tile));
  float d_row;
  memcpy(&d_row, p + static_cast<size_t>(lane) * sizeof(float), sizeof d_row);
  const Tile* tiles = reinterpret_cast<const Tile*>(p + kStripHeaderBytes);
  for (int64_t k = 0; k < tensor.n_cols; ++k) {
    out[k] = d_row * weight(tiles[k / kTileK], lane, static_cast<int>(k % kTileK));
  }
}

using DecodeRowFn = void (*)(const Tensor& tensor, int64_t row, float* out);

DecodeRowFn row_decoder(Format format) {
  switch (format) {
    case Format::kE4_16:
      return decode_row<TileE4_16>;
    case Format::kE4_32:
      return decode_row<TileE4_32>;
    case Format::kE6_16:
      return decode_row<TileE6_16>;
    case Format::kE8_32:
      return decode_row<TileE8_32>;
    case Format::kF16:
      return decode_row<TileF16>;
    case Format::kF32:
    case Format::kU8:
      return nullptr;
  }
  return nullptr;
}

}  // namespace

void decode_rows(const Tensor& tensor, int64_t row0, int64_t n, float* out) {
  const DecodeRowFn decode = row_decoder(tensor.format);
  if (decode == nullptr) {
    memcpy(out, tensor.as_f32() + row0 * tensor.n_cols,
           static_cast<size_t>(n * tensor.n_cols) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < n; ++i) decode(tensor, row0 + i, out + i * tensor.n_cols);
}

}  // namespace edge
