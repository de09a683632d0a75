#include "quant/decode.h"

#include <cstring>

#include "quant/tile_weights.h"

namespace edge {

namespace {

template <class Tile>
void decode_row(const Tensor& tensor, int64_t row, float* out) {
  const size_t n_tiles = static_cast<size_t>(tensor.n_tiles());
  const size_t strip = static_cast<size_t>(row / kTileRows);
  const int lane = static_cast<int>(row % kTileRows);
  const std::byte* p = tensor.data + strip * (kStripHeaderBytes + n_tiles * sizeof(Tile));
  float d_row;
  std::memcpy(&d_row, p + static_cast<size_t>(lane) * sizeof(float), sizeof d_row);
  const Tile* tiles = reinterpret_cast<const Tile*>(p + kStripHeaderBytes);
  for (int64_t k = 0; k < tensor.n_cols; ++k) {
    out[k] = d_row * tile_value(tiles[k / kTileK], lane, static_cast<int>(k % kTileK));
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
    case Format::kL4_32:
      return decode_row<TileL4_32>;
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
