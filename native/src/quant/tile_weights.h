// The meaning of every weight format, one weight at a time: w = d_row * scale * weight. Scalar code
// (definition, decode, f32 activations) reads tiles only through these.
#pragma once

#include "base/half.h"
#include "quant/tile_stream.h"
#include "quant/tiles.h"

namespace edge {

static inline int tile_nibble(const uint8_t nibbles[4][64], int row, int k) {
  const uint8_t byte = nibbles[k >> 3][row * 4 + (k & 3)];
  return (k & 4) ? byte >> 4 : byte & 15;
}

static inline int tile_pair(const uint8_t pairs[2][64], int row, int k) {
  return (pairs[k >> 4][row * 4 + (k & 3)] >> (2 * ((k >> 2) & 3))) & 3;
}

// Integer weight of (row, k), zero point removed.
static inline int tile_weight(const TileE2_16& tile, int row, int k) {
  const int zero = kE2Zero - kE2ZeroStep * (tile.sc[k >> 4][row] & kE2ZeroMask);
  return kLutE2Low[tile_pair(tile.pairs, row, k)] - zero;
}
static inline int tile_weight(const TileE3_32& tile, int row, int k) {
  const int quad = k >> 2;
  const int byte = row * 4 + (k & 3);
  const int low = 4 * (quad & 1);  // the lowest bit of the nibble
  int q;
  if (quad < 6) {
    q = (tile.nibbles[quad >> 1][byte] >> low) & 7;
  } else {
    q = ((tile.nibbles[0][byte] >> (low + 3)) & 1) | ((tile.nibbles[1][byte] >> (low + 2)) & 2) |
        ((tile.nibbles[2][byte] >> (low + 1)) & 4);
  }
  return kLutE3[q] - (kE3Zero - kE3ZeroStep * (tile.sc[row] & kE3ZeroMask));
}
static inline int tile_weight(const TileE4_16& tile, int row, int k) {
  return kLutE4[tile_nibble(tile.nibbles, row, k)] + kLutE4Shift * (tile.sc[k >> 4][row] & 1) -
         kLutE4Zero;
}
static inline int tile_weight(const TileE4_32& tile, int row, int k) {
  return kLutE4[tile_nibble(tile.nibbles, row, k)] + kLutE4Shift * (tile.sc[row] & 1) - kLutE4Zero;
}
static inline int tile_weight(const TileE6_16& tile, int row, int k) {
  return tile_nibble(tile.nibbles, row, k) + 16 * tile_pair(tile.hi, row, k) - kE6Zero;
}
static inline int tile_weight(const TileE8_32& tile, int row, int k) {
  return tile.quads[k >> 2][row * 4 + (k & 3)] - kE8Zero;
}

static inline int tile_weight(const TileL4_32& tile, int row, int k) {
  return tile_nibble(tile.nibbles, row, k) - tile.zero[row];
}
static inline int tile_weight(const TileL8_32& tile, int row, int k) {
  return tile.quads[k >> 2][row * 4 + (k & 3)] - kL8Zero;
}

// Integer scale of the group that (row, k) belongs to.
static inline int tile_scale(const TileE2_16& tile, int row, int k) {
  return group_scale(tile.sc[k >> 4][row], kE2ZeroMask);
}
static inline int tile_scale(const TileE3_32& tile, int row, int) {
  return group_scale(tile.sc[row], kE3ZeroMask);
}
static inline int tile_scale(const TileE4_16& tile, int row, int k) {
  return group_scale(tile.sc[k >> 4][row]);
}
static inline int tile_scale(const TileE4_32& tile, int row, int) {
  return group_scale(tile.sc[row]);
}
static inline int tile_scale(const TileE6_16& tile, int row, int k) {
  return group_scale(tile.sc[k >> 4][row]);
}
static inline int tile_scale(const TileE8_32& tile, int row, int) {
  return group_scale(tile.sc[row]);
}

// scale * weight, exact in f32; d_row is still to be multiplied.
template <class Tile>
static inline float tile_value(const Tile& tile, int row, int k) {
  return static_cast<float>(tile_scale(tile, row, k) * tile_weight(tile, row, k));
}
static inline float tile_value(const TileL4_32& tile, int row, int k) {
  return half_to_float(tile.s[row]) * static_cast<float>(tile_weight(tile, row, k));
}
static inline float tile_value(const TileL8_32& tile, int row, int k) {
  return half_to_float(tile.s[row]) * static_cast<float>(tile_weight(tile, row, k));
}
static inline float tile_value(const TileF16& tile, int row, int k) {
  return half_to_float(tile.w[k][row]);
}

// A tile with what it needs from outside; other tiles are their own view.
struct ViewK4_32 {
  const TileK4_32& tile;
  const HeadK4_32& head;
};
template <class Tile>
static inline const Tile& tile_view(const uint8_t* packed) {
  return *reinterpret_cast<const Tile*>(packed);
}
template <class Tile>
static inline ViewK4_32 tile_view(HeadedTile packed) {
  return {*reinterpret_cast<const Tile*>(packed.tile),
          *reinterpret_cast<const HeadK4_32*>(packed.head)};
}

// The scale and the minimum of a group: exact, 11 times 8 bits.
static inline float group_scale(const ViewK4_32& view, int row) {
  return half_to_float(view.head.d[row]) * static_cast<float>(view.tile.sc[row]);
}
static inline float group_min(const ViewK4_32& view, int row) {
  return half_to_float(view.head.dmin[row]) * static_cast<float>(view.tile.min[row]);
}
// The one that is rounded.
static inline float tile_value(const ViewK4_32& view, int row, int k) {
  const float q = static_cast<float>(tile_nibble(view.tile.nibbles, row, k));
  return group_scale(view, row) * q - group_min(view, row);
}

}  // namespace edge
