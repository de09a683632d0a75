// How a thread reads one row of a tile (quant/tiles.h gives the bytes): 32 weights as eight words
// of four bytes, which dp4a multiplies with int8 activations, and what a format does with such a
// sum. A word's bytes are at most 127 or signed; what they stand above zero is taken off by the
// sums of the activations. Equal to kernels/scalar/matmul_a8.cc and quant/tile_weights.h bit for
// bit.
#pragma once

#include "backends/cuda/device.h"
#include "base/fma.h"
#include "base/half.h"
#include "quant/tiles.h"
#include "tensor/tensor.h"

namespace edge::cuda {

struct RowQuads {
  uint32_t quads[8];

  __device__ int byte(int k) const { return static_cast<int8_t>(quads[k / 4] >> 8 * (k % 4)); }
  // Over columns [16 * first, 16 * end) of a block; a: its 32 activations.
  __device__ int dot(const int* a, int first, int end) const {
    int sum = 0;
    EDGE_UNROLL
    for (int t = 4 * first; t < 4 * end; ++t) {
      sum = __dp4a(static_cast<int>(quads[t]), a[t], sum);
    }
    return sum;
  }
};

// Sums of 16 activations each.
struct ActSums {
  int of[2];
};

__device__ inline uint32_t word_at(const uint8_t* group, int row) {
  return reinterpret_cast<const uint32_t*>(group)[row];
}
__device__ inline float half_at(const uint8_t* halves, int i) {
  return half_to_float(reinterpret_cast<const uint16_t*>(halves)[i]);
}

// The entries of a table of 16 bytes for eight nibbles, as words: of the low ones and of the high.
struct Table {
  uint32_t words[4];
};
constexpr Table table_of(const uint8_t* bytes) {
  Table table = {};
  for (int i = 0; i < 16; ++i) table.words[i / 4] |= uint32_t{bytes[i]} << 8 * (i % 4);
  return table;
}
__device__ inline uint32_t lookup4(const Table& table, uint32_t nibbles) {
  const uint32_t index = nibbles & 0x7777u;
  const uint32_t below8 = __byte_perm(table.words[0], table.words[1], index);
  const uint32_t from8 = __byte_perm(table.words[2], table.words[3], index);
  return __byte_perm(below8, from8, 0x3210u | (nibbles & 0x8888u) >> 1);
}
__device__ inline void lookup8(const Table& table, uint32_t nibbles, uint32_t& low,
                               uint32_t& high) {
  const uint32_t first = lookup4(table, nibbles);
  const uint32_t second = lookup4(table, nibbles >> 16);
  low = __byte_perm(first, second, 0x6420);
  high = __byte_perm(first, second, 0x7531);
}

__device__ inline void nibble_quads(const uint8_t* nibbles, int row, RowQuads& out) {
  EDGE_UNROLL
  for (int j = 0; j < 4; ++j) {
    const uint32_t word = word_at(nibbles + 64 * j, row);
    out.quads[2 * j] = word & 0x0f0f0f0fu;
    out.quads[2 * j + 1] = word >> 4 & 0x0f0f0f0fu;
  }
}
__device__ inline void lut_quads(const Table& lut, const uint8_t* nibbles, int row, RowQuads& out) {
  EDGE_UNROLL
  for (int j = 0; j < 4; ++j) {
    lookup8(lut, word_at(nibbles + 64 * j, row), out.quads[2 * j], out.quads[2 * j + 1]);
  }
}
__device__ inline void byte_quads(const uint8_t* quads, int row, RowQuads& out) {
  EDGE_UNROLL
  for (int t = 0; t < 8; ++t) out.quads[t] = word_at(quads + 64 * t, row) ^ 0x80808080u;
}
__device__ inline int scale_of(uint8_t sc, int mask) { return (sc & ~mask) + (mask + 1) / 2 - 128; }

// Formats with a scale and a zero point for 16 columns each: s0 D0 + s1 D1 is exact.
struct RowBy16 : RowQuads {
  int scale[2];
  int zero[2];

  __device__ float sum(const int* a, const ActSums& sums) const {
    const int low = dot(a, 0, 1) - zero[0] * sums.of[0];
    const int high = dot(a, 1, 2) - zero[1] * sums.of[1];
    return static_cast<float>(scale[0] * low + scale[1] * high);
  }
  __device__ float value(int k) const {
    return static_cast<float>(scale[k / 16] * (byte(k) - zero[k / 16]));
  }
};

// With one for 32: the product is rounded.
struct RowBy32 : RowQuads {
  float scale;
  int zero;

  __device__ float sum(const int* a, const ActSums& sums) const {
    return scale * static_cast<float>(dot(a, 0, 2) - zero * (sums.of[0] + sums.of[1]));
  }
  __device__ float value(int k) const { return scale * static_cast<float>(byte(k) - zero); }
};

struct E2_16 {
  using Tile = TileE2_16;
  using Row = RowBy16;
  static __device__ Row row_of(const uint8_t* tile, const uint8_t*, int row) {
    constexpr Table kLut = table_of(kLutE2Low);
    Row out;
    EDGE_UNROLL
    for (int h = 0; h < 2; ++h) {
      const uint32_t pairs = word_at(tile + 32 + 64 * h, row);
      EDGE_UNROLL
      for (int i = 0; i < 2; ++i) {
        const uint32_t low = pairs >> 4 * i & 0x03030303u,
                       high = pairs >> (4 * i + 2) & 0x03030303u;
        lookup8(kLut, low | high << 4, out.quads[4 * h + 2 * i], out.quads[4 * h + 2 * i + 1]);
      }
      const uint8_t sc = tile[16 * h + row];
      out.scale[h] = scale_of(sc, kE2ZeroMask);
      out.zero[h] = kE2Zero - kE2ZeroStep * (sc & kE2ZeroMask);
    }
    return out;
  }
};

struct E3_32 {
  using Tile = TileE3_32;
  using Row = RowBy32;
  static __device__ Row row_of(const uint8_t* tile, const uint8_t*, int row) {
    constexpr Table kLut = table_of(kLutE3);
    Row out;
    uint32_t last = 0;  // bit j of the codes of quads 6 and 7 stands above nibbles[j]'s
    EDGE_UNROLL
    for (int j = 0; j < 3; ++j) {
      const uint32_t word = word_at(tile + 16 + 64 * j, row);
      lookup8(kLut, word, out.quads[2 * j], out.quads[2 * j + 1]);
      last |= (word >> 3 & 0x11111111u) << j;
    }
    lookup8(kLut, last, out.quads[6], out.quads[7]);
    const uint8_t sc = tile[row];
    out.scale = static_cast<float>(scale_of(sc, kE3ZeroMask));
    out.zero = kE3Zero - kE3ZeroStep * (sc & kE3ZeroMask);
    return out;
  }
};

struct E4_16 {
  using Tile = TileE4_16;
  using Row = RowBy16;
  static __device__ Row row_of(const uint8_t* tile, const uint8_t*, int row) {
    constexpr Table kLut = table_of(kLutE4);
    Row out;
    lut_quads(kLut, tile + 32, row, out);
    EDGE_UNROLL
    for (int h = 0; h < 2; ++h) {
      const uint8_t sc = tile[16 * h + row];
      out.scale[h] = scale_of(sc, 1);
      out.zero[h] = kLutE4Zero - kLutE4Shift * (sc & 1);
    }
    return out;
  }
};

struct E4_32 {
  using Tile = TileE4_32;
  using Row = RowBy32;
  static __device__ Row row_of(const uint8_t* tile, const uint8_t*, int row) {
    constexpr Table kLut = table_of(kLutE4);
    Row out;
    lut_quads(kLut, tile + 16, row, out);
    out.scale = static_cast<float>(scale_of(tile[row], 1));
    out.zero = kLutE4Zero - kLutE4Shift * (tile[row] & 1);
    return out;
  }
};

struct E6_16 {
  using Tile = TileE6_16;
  using Row = RowBy16;
  static __device__ Row row_of(const uint8_t* tile, const uint8_t*, int row) {
    Row out;
    nibble_quads(tile + 32, row, out);
    EDGE_UNROLL
    for (int h = 0; h < 2; ++h) {
      const uint32_t pairs = word_at(tile + 288 + 64 * h, row);
      EDGE_UNROLL
      for (int i = 0; i < 4; ++i) out.quads[4 * h + i] |= (pairs >> 2 * i & 0x03030303u) << 4;
      out.scale[h] = scale_of(tile[16 * h + row], 1);
      out.zero[h] = kE6Zero;
    }
    return out;
  }
};

struct E8_32 {
  using Tile = TileE8_32;
  using Row = RowBy32;
  static __device__ Row row_of(const uint8_t* tile, const uint8_t*, int row) {
    Row out;
    byte_quads(tile + 16, row, out);
    out.scale = static_cast<float>(scale_of(tile[row], 1));
    out.zero = 0;
    return out;
  }
};

struct L4_32 {
  using Tile = TileL4_32;
  using Row = RowBy32;
  static __device__ Row row_of(const uint8_t* tile, const uint8_t*, int row) {
    Row out;
    nibble_quads(tile + 48, row, out);
    out.scale = half_at(tile, row);
    out.zero = tile[32 + row];
    return out;
  }
};

struct L8_32 {
  using Tile = TileL8_32;
  using Row = RowBy32;
  static __device__ Row row_of(const uint8_t* tile, const uint8_t*, int row) {
    Row out;
    byte_quads(tile + 32, row, out);
    out.scale = half_at(tile, row);
    out.zero = 0;
    return out;
  }
};

struct RowK4 : RowQuads {
  float scale;
  float minimum;

  __device__ float sum(const int* a, const ActSums& sums) const {
    const float p = minimum * static_cast<float>(-(sums.of[0] + sums.of[1]));
    return fma_exact(scale, static_cast<float>(dot(a, 0, 2)), p);
  }
  __device__ float value(int k) const { return scale * static_cast<float>(byte(k)) - minimum; }
};
struct K4_32 {
  using Tile = TileK4_32;
  using Row = RowK4;
  static __device__ Row row_of(const uint8_t* tile, const uint8_t* head, int row) {
    Row out;
    nibble_quads(tile + 32, row, out);
    out.scale = half_at(head, row) * static_cast<float>(tile[row]);
    out.minimum = half_at(head + 32, row) * static_cast<float>(tile[16 + row]);
    return out;
  }
};

struct RowF16 {
  const uint16_t* column;
  __device__ float value(int k) const { return half_to_float(column[16 * k]); }
};
struct F16 {
  using Tile = TileF16;
  using Row = RowF16;
  static __device__ Row row_of(const uint8_t* tile, const uint8_t*, int row) {
    return {reinterpret_cast<const uint16_t*>(tile) + row};
  }
};

// A matrix in tiles, as kernels get it.
struct Matrix {
  const uint8_t* strips;
  int64_t strip_bytes;
  int64_t tiles_offset;
  int64_t n_tiles;  // of a strip
  int n_strips;

  __device__ const uint8_t* strip(int64_t number) const { return strips + strip_bytes * number; }
};

template <class F>
__device__ auto row_of_tile(const Matrix& w, const uint8_t* strip, int64_t tile, int row) {
  const uint8_t* head = strip + kStripHeaderBytes + sizeof(HeadK4_32) * (tile / kHeadTiles);
  const uint8_t* at =
      strip + w.tiles_offset + static_cast<int64_t>(sizeof(typename F::Tile)) * tile;
  return F::row_of(at, head, row);
}

inline Matrix matrix_of(const Tensor& weight) {
  Matrix w;
  w.strips = reinterpret_cast<const uint8_t*>(weight.data);
  w.n_tiles = weight.n_tiles();
  w.strip_bytes = static_cast<int64_t>(strip_bytes(weight.format, w.n_tiles));
  w.tiles_offset = w.strip_bytes - static_cast<int64_t>(tile_bytes(weight.format)) * w.n_tiles;
  w.n_strips = static_cast<int>(weight.n_strips());
  return w;
}

// f(F{}) with the format's struct; false: there is none.
template <class Function>
bool with_integer_format(Format format, const Function& f) {
  switch (format) {
    case Format::kE2_16:
      return f(E2_16{}), true;
    case Format::kE3_32:
      return f(E3_32{}), true;
    case Format::kE4_16:
      return f(E4_16{}), true;
    case Format::kE4_32:
      return f(E4_32{}), true;
    case Format::kE6_16:
      return f(E6_16{}), true;
    case Format::kE8_32:
      return f(E8_32{}), true;
    case Format::kK4_32:
      return f(K4_32{}), true;
    case Format::kL4_32:
      return f(L4_32{}), true;
    case Format::kL8_32:
      return f(L8_32{}), true;
    default:
      return false;
  }
}
template <class Function>
bool with_format(Format format, const Function& f) {
  if (format == Format::kF16) return f(F16{}), true;
  return with_integer_format(format, f);
}

}  // namespace edge::cuda
