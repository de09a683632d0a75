// How a thread reads one row of a tile (quant/tiles.h gives the bytes): 32 weights as eight words
// of four bytes, which dot4 multiplies with int8 activations, and what a format does with such a
// sum. A word's bytes are at most 127 or signed; what they stand above zero is taken off by the
// sums of the activations. Equal to kernels/scalar/matmul_a8.cc and quant/tile_weights.h bit for
// bit. Included after a dialect, which has lookup8().
#pragma once

#include "backends/gpu/lane.inl.h"
#include "quant/tiles.h"

namespace EDGE_DEVICE {

struct RowQuads {
  uint32_t quads[8];

  EDGE_MEMBER_FN int byte(int k) const { return static_cast<int8_t>(quads[k / 4] >> 8 * (k % 4)); }
  // Over columns [16 * first, 16 * end) of a block; a: its 32 activations.
  EDGE_MEMBER_FN int dot(EDGE_LOCAL const int* a, int first, int end) const {
    int sum = 0;
    EDGE_UNROLL
    for (int t = 4 * first; t < 4 * end; ++t) {
      sum = dot4(static_cast<int>(quads[t]), a[t], sum);
    }
    return sum;
  }
};

// Sums of 16 activations each.
struct ActSums {
  int of[2];
};

EDGE_FN uint32_t word_at(EDGE_GLOBAL const uint8_t* group, int row) {
  return reinterpret_cast<EDGE_GLOBAL const uint32_t*>(group)[row];
}
EDGE_FN float half_at(EDGE_GLOBAL const uint8_t* halves, int i) {
  return half_to_float(reinterpret_cast<EDGE_GLOBAL const uint16_t*>(halves)[i]);
}

EDGE_FN void nibble_quads(EDGE_GLOBAL const uint8_t* nibbles, int row, EDGE_LOCAL RowQuads& out) {
  EDGE_UNROLL
  for (int j = 0; j < 4; ++j) {
    const uint32_t word = word_at(nibbles + 64 * j, row);
    out.quads[2 * j] = word & 0x0f0f0f0fu;
    out.quads[2 * j + 1] = word >> 4 & 0x0f0f0f0fu;
  }
}
EDGE_FN void lut_quads(Lut lut, EDGE_GLOBAL const uint8_t* nibbles, int row,
                       EDGE_LOCAL RowQuads& out) {
  EDGE_UNROLL
  for (int j = 0; j < 4; ++j) {
    lookup8(lut, word_at(nibbles + 64 * j, row), out.quads[2 * j], out.quads[2 * j + 1]);
  }
}
EDGE_FN void byte_quads(EDGE_GLOBAL const uint8_t* quads, int row, EDGE_LOCAL RowQuads& out) {
  EDGE_UNROLL
  for (int t = 0; t < 8; ++t) out.quads[t] = word_at(quads + 64 * t, row) ^ 0x80808080u;
}
EDGE_FN int scale_of(uint8_t sc, int mask) { return (sc & ~mask) + (mask + 1) / 2 - 128; }

// Formats with a scale and a zero point for 16 columns each: s0 D0 + s1 D1 is exact.
struct RowBy16 : RowQuads {
  int scale[2];
  int zero[2];

  EDGE_MEMBER_FN float sum(EDGE_LOCAL const int* a, ActSums sums) const {
    const int low = dot(a, 0, 1) - zero[0] * sums.of[0];
    const int high = dot(a, 1, 2) - zero[1] * sums.of[1];
    return static_cast<float>(scale[0] * low + scale[1] * high);
  }
  EDGE_MEMBER_FN float value(int k) const {
    return static_cast<float>(scale[k / 16] * (byte(k) - zero[k / 16]));
  }
};

// With one for 32: the product is rounded.
struct RowBy32 : RowQuads {
  float scale;
  int zero;

  EDGE_MEMBER_FN float sum(EDGE_LOCAL const int* a, ActSums sums) const {
    return scale * static_cast<float>(dot(a, 0, 2) - zero * (sums.of[0] + sums.of[1]));
  }
  EDGE_MEMBER_FN float value(int k) const { return scale * static_cast<float>(byte(k) - zero); }
};

// Of which the scale is an integer, so that a weight that is zero has no sign.
struct RowByInteger32 : RowBy32 {
  EDGE_MEMBER_FN float value(int k) const {
    return static_cast<float>(static_cast<int>(scale) * (byte(k) - zero));
  }
};

struct E2_16 {
  using Tile = TileE2_16;
  using Row = RowBy16;
  static EDGE_MEMBER_FN Row row_of(EDGE_GLOBAL const uint8_t* tile, EDGE_GLOBAL const uint8_t*,
                                   int row) {
    const Lut lut = EDGE_LUT(kLutE2Low);
    Row out;
    EDGE_UNROLL
    for (int h = 0; h < 2; ++h) {
      const uint32_t pairs = word_at(tile + 32 + 64 * h, row);
      EDGE_UNROLL
      for (int i = 0; i < 2; ++i) {
        const uint32_t low = pairs >> 4 * i & 0x03030303u,
                       high = pairs >> (4 * i + 2) & 0x03030303u;
        lookup8(lut, low | high << 4, out.quads[4 * h + 2 * i], out.quads[4 * h + 2 * i + 1]);
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
  using Row = RowByInteger32;
  static EDGE_MEMBER_FN Row row_of(EDGE_GLOBAL const uint8_t* tile, EDGE_GLOBAL const uint8_t*,
                                   int row) {
    const Lut lut = EDGE_LUT(kLutE3);
    Row out;
    uint32_t last = 0;  // bit j of the codes of quads 6 and 7 stands above nibbles[j]'s
    EDGE_UNROLL
    for (int j = 0; j < 3; ++j) {
      const uint32_t word = word_at(tile + 16 + 64 * j, row);
      lookup8(lut, word, out.quads[2 * j], out.quads[2 * j + 1]);
      last |= (word >> 3 & 0x11111111u) << j;
    }
    lookup8(lut, last, out.quads[6], out.quads[7]);
    const uint8_t sc = tile[row];
    out.scale = static_cast<float>(scale_of(sc, kE3ZeroMask));
    out.zero = kE3Zero - kE3ZeroStep * (sc & kE3ZeroMask);
    return out;
  }
};

struct E4_16 {
  using Tile = TileE4_16;
  using Row = RowBy16;
  static EDGE_MEMBER_FN Row row_of(EDGE_GLOBAL const uint8_t* tile, EDGE_GLOBAL const uint8_t*,
                                   int row) {
    const Lut lut = EDGE_LUT(kLutE4);
    Row out;
    lut_quads(lut, tile + 32, row, out);
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
  using Row = RowByInteger32;
  static EDGE_MEMBER_FN Row row_of(EDGE_GLOBAL const uint8_t* tile, EDGE_GLOBAL const uint8_t*,
                                   int row) {
    const Lut lut = EDGE_LUT(kLutE4);
    Row out;
    lut_quads(lut, tile + 16, row, out);
    out.scale = static_cast<float>(scale_of(tile[row], 1));
    out.zero = kLutE4Zero - kLutE4Shift * (tile[row] & 1);
    return out;
  }
};

struct E6_16 {
  using Tile = TileE6_16;
  using Row = RowBy16;
  static EDGE_MEMBER_FN Row row_of(EDGE_GLOBAL const uint8_t* tile, EDGE_GLOBAL const uint8_t*,
                                   int row) {
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
  using Row = RowByInteger32;
  static EDGE_MEMBER_FN Row row_of(EDGE_GLOBAL const uint8_t* tile, EDGE_GLOBAL const uint8_t*,
                                   int row) {
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
  static EDGE_MEMBER_FN Row row_of(EDGE_GLOBAL const uint8_t* tile, EDGE_GLOBAL const uint8_t*,
                                   int row) {
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
  static EDGE_MEMBER_FN Row row_of(EDGE_GLOBAL const uint8_t* tile, EDGE_GLOBAL const uint8_t*,
                                   int row) {
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

  EDGE_MEMBER_FN float sum(EDGE_LOCAL const int* a, ActSums sums) const {
    const float p = minimum * static_cast<float>(-(sums.of[0] + sums.of[1]));
    return fma_exact(scale, static_cast<float>(dot(a, 0, 2)), p);
  }
  EDGE_MEMBER_FN float value(int k) const { return scale * static_cast<float>(byte(k)) - minimum; }
};
struct K4_32 {
  using Tile = TileK4_32;
  using Row = RowK4;
  static EDGE_MEMBER_FN Row row_of(EDGE_GLOBAL const uint8_t* tile, EDGE_GLOBAL const uint8_t* head,
                                   int row) {
    Row out;
    nibble_quads(tile + 32, row, out);
    out.scale = half_at(head, row) * static_cast<float>(tile[row]);
    out.minimum = half_at(head + 32, row) * static_cast<float>(tile[16 + row]);
    return out;
  }
};

struct RowF16 {
  EDGE_GLOBAL const uint16_t* column;
  EDGE_MEMBER_FN float value(int k) const { return half_to_float(column[16 * k]); }
};
struct F16 {
  using Tile = TileF16;
  using Row = RowF16;
  static EDGE_MEMBER_FN Row row_of(EDGE_GLOBAL const uint8_t* tile, EDGE_GLOBAL const uint8_t*,
                                   int row) {
    return {reinterpret_cast<EDGE_GLOBAL const uint16_t*>(tile) + row};
  }
};

EDGE_FN EDGE_GLOBAL const uint8_t* strip_of(EDGE_ARGS Matrix& w, int64_t number) {
  return w.strips + w.strip_bytes * number;
}

template <class F>
EDGE_FN typename F::Row row_of_tile(EDGE_ARGS Matrix& w, EDGE_GLOBAL const uint8_t* strip,
                                    int64_t tile, int row) {
  EDGE_GLOBAL const uint8_t* head =
      strip + kStripHeaderBytes + sizeof(HeadK4_32) * static_cast<size_t>(tile / kHeadTiles);
  EDGE_GLOBAL const uint8_t* at =
      strip + w.tiles_offset + static_cast<int64_t>(sizeof(typename F::Tile)) * tile;
  return F::row_of(at, head, row);
}

}  // namespace EDGE_DEVICE

// Every format's struct, by the name that files have for it (format_name()).
#define EDGE_INTEGER_FORMATS(F) \
  F(E2_16) F(E3_32) F(E4_16) F(E4_32) F(E6_16) F(E8_32) F(K4_32) F(L4_32) F(L8_32)
#define EDGE_FORMATS(F) EDGE_INTEGER_FORMATS(F) F(F16)
