// Tensor: a typed, non-owning view of bytes that live in the mapped file.
//
// A matrix [n_rows, n_cols] in a tiled format is cut into strips of 16 rows. A strip is
// f32 d_row[16], in some formats a head for every 8 tiles, and its tiles by ascending k, 32 k a
// tile; n_rows is padded to 16 with d_row = 0 and n_cols to 32 with weights that meet zero
// activations. A vector (norm weights,
// inv_freq) has format kF32 and is plain row-major f32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "tensor/tile_shape.h"

namespace edge {

enum class Format : uint8_t {
#define EDGE_FORMAT(id, name, group_k, tile_bytes, head_bytes) id,
#include "tensor/formats.inc"
#undef EDGE_FORMAT
  kF32,  // vectors only
  kU8,   // opaque blobs: tokenizer, template, recipe, report, hashes
};

// How a matrix wants its activations: int8 per 32 with f32 scales; plain f32; or int8 twice, the
// value and what rounding left of it, for inputs with outliers.
enum class Act : uint8_t { kA8, kF32, kA8x2 };

std::string_view format_name(Format format);
std::optional<Format> format_from_name(std::string_view name);
std::string_view act_name(Act act);
std::optional<Act> act_from_name(std::string_view name);

// Columns that share a scale byte; 0 where there are none.
int columns_per_scale(Format format);

// Bytes of one tile / of one strip with n_tiles tiles; 0 for kF32 and kU8.
size_t tile_bytes(Format format);
size_t strip_bytes(Format format, int64_t n_tiles);

// Bytes of a whole [n_rows, n_cols] tensor in a format; nullopt on overflow. Vectors: n_rows = 1.
std::optional<uint64_t> tensor_bytes(Format format, uint64_t n_rows, uint64_t n_cols);

struct Tensor {
  Format format = Format::kU8;
  Act act = Act::kA8;
  int64_t n_rows = 0;  // logical rows (outputs)
  int64_t n_cols = 0;  // logical columns (inputs, k)
  const std::byte* data = nullptr;
  size_t n_bytes = 0;

  int64_t n_strips() const { return (n_rows + kTileRows - 1) / kTileRows; }
  int64_t n_tiles() const { return (n_cols + kTileK - 1) / kTileK; }  // per strip
  bool is_valid() const { return data != nullptr; }
  const float* as_f32() const { return reinterpret_cast<const float*>(data); }
};

// Rows [begin, begin + n) of a matrix in a tiled format; begin is a multiple of 16.
Tensor rows_of(const Tensor& matrix, int64_t begin, int64_t n);

}  // namespace edge
