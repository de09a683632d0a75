#include "quant/decode.h"

#include <algorithm>
#include <cstring>

#include "quant/tile_weights.h"

namespace edge {

namespace {

template <class Tile>
void decode_row(const Tensor& tensor, int64_t row, float* out) {
  const size_t strip = static_cast<size_t>(row / kTileRows);
  const int lane = static_cast<int>(row % kTileRows);
  const int64_t n_tiles = tensor.n_tiles();
  const size_t n_bytes = strip_bytes_of<Tile>(sizeof(Tile), n_tiles);
  const auto* p = reinterpret_cast<const uint8_t*>(tensor.data) + strip * n_bytes;
  float d_row;
  std::memcpy(&d_row, p + static_cast<size_t>(lane) * sizeof(float), sizeof d_row);
  const uint8_t* tile = p + tiles_offset_of<Tile>(n_tiles);
  for (int64_t i = 0; i < n_tiles; ++i, tile += sizeof(Tile)) {
    const auto& view = tile_view<Tile>(packed_tile<Tile>(p, tile, i));
    const int64_t end = std::min<int64_t>(tensor.n_cols, (i + 1) * kTileK);
    for (int64_t k = i * kTileK; k < end; ++k) {
      out[k] = d_row * tile_value(view, lane, static_cast<int>(k % kTileK));
    }
  }
}

using DecodeRowFn = void (*)(const Tensor& tensor, int64_t row, float* out);

DecodeRowFn row_decoder(Format format) {
  switch (format) {
    case Format::kE2_16:
      return decode_row<TileE2_16>;
    case Format::kE3_32:
      return decode_row<TileE3_32>;
    case Format::kE4_16:
      return decode_row<TileE4_16>;
    case Format::kE4_32:
      return decode_row<TileE4_32>;
    case Format::kE6_16:
      return decode_row<TileE6_16>;
    case Format::kE8_32:
      return decode_row<TileE8_32>;
    case Format::kK4_32:
      return decode_row<TileK4_32>;
    case Format::kL4_32:
      return decode_row<TileL4_32>;
    case Format::kL8_32:
      return decode_row<TileL8_32>;
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
    std::memcpy(out, tensor.as_f32() + row0 * tensor.n_cols,
                static_cast<size_t>(n * tensor.n_cols) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < n; ++i) decode(tensor, row0 + i, out + i * tensor.n_cols);
}

}  // namespace edge
