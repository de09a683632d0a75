#include "tensor/tensor.h"

#include "base/checked.h"

namespace edge {

namespace {

struct FormatRow {
  Format format;
  std::string_view name;
  int group_k;
  size_t tile_bytes;
  size_t head_bytes;
};

constexpr FormatRow kFormats[] = {
#define EDGE_FORMAT(id, name, group_k, tile_bytes, head_bytes) \
  {Format::id, name, group_k, tile_bytes, head_bytes},
#include "tensor/formats.inc"
#undef EDGE_FORMAT
    {Format::kF32, "F32", 0, 0, 0},
    {Format::kU8, "U8", 0, 0, 0},
};

size_t head_bytes(Format format) {
  for (const FormatRow& row : kFormats) {
    if (row.format == format) return row.head_bytes;
  }
  return 0;
}

}  // namespace

std::string_view format_name(Format format) {
  for (const FormatRow& row : kFormats) {
    if (row.format == format) return row.name;
  }
  return "unknown";
}

std::optional<Format> format_from_name(std::string_view name) {
  for (const FormatRow& row : kFormats) {
    if (row.name == name) return row.format;
  }
  return std::nullopt;
}

std::string_view act_name(Act act) {
  switch (act) {
    case Act::kA8:
      return "a8";
    case Act::kF32:
      return "f32";
    case Act::kA8x2:
      return "a8x2";
  }
  return "unknown";
}

std::optional<Act> act_from_name(std::string_view name) {
  for (const Act act : {Act::kA8, Act::kF32, Act::kA8x2}) {
    if (act_name(act) == name) return act;
  }
  return std::nullopt;
}

int columns_per_scale(Format format) {
  for (const FormatRow& row : kFormats) {
    if (row.format == format) return row.group_k;
  }
  return 0;
}

size_t tile_bytes(Format format) {
  for (const FormatRow& row : kFormats) {
    if (row.format == format) return row.tile_bytes;
  }
  return 0;
}

size_t strip_bytes(Format format, int64_t n_tiles) {
  const size_t tile = tile_bytes(format);
  if (tile == 0) return 0;
  return tiles_offset(head_bytes(format), n_tiles) + tile * static_cast<size_t>(n_tiles);
}

std::optional<uint64_t> tensor_bytes(Format format, uint64_t n_rows, uint64_t n_cols) {
  if (format == Format::kU8) return checked_mul(n_rows, n_cols);
  if (format == Format::kF32) {
    const auto n = checked_mul(n_rows, n_cols);
    return n ? checked_mul(*n, sizeof(float)) : std::nullopt;
  }
  const auto padded_rows = checked_round_up(n_rows, kTileRows);
  const auto padded_cols = checked_round_up(n_cols, kTileK);
  if (!padded_rows || !padded_cols) return std::nullopt;
  const uint64_t n_tiles = *padded_cols / kTileK;
  const auto tiles = checked_mul(n_tiles, tile_bytes(format));
  if (!tiles) return std::nullopt;
  // A head is smaller than a tile: the offset of the tiles cannot overflow where they do not.
  const auto strip =
      checked_add(*tiles, tiles_offset(head_bytes(format), static_cast<int64_t>(n_tiles)));
  return strip ? checked_mul(*strip, *padded_rows / kTileRows) : std::nullopt;
}

Tensor rows_of(const Tensor& matrix, int64_t begin, int64_t n) {
  Tensor part = matrix;
  const size_t bytes = strip_bytes(matrix.format, matrix.n_tiles());
  part.data += static_cast<size_t>(begin / kTileRows) * bytes;
  part.n_rows = n;
  part.n_bytes = static_cast<size_t>(part.n_strips()) * bytes;
  return part;
}

}  // namespace edge
