// The meaning of every weight format, one weight at a time: w = d_row * scale * weight. Scalar code
// (definition, decode, f32 activations) reads tiles only through these.
#pragma once

#include "base/half.h"
#include "quant/tiles.h"

namespace edge {

static inline int tile_nibble(const uint8_t nibbles[4][64], int row, int k) {
  const uint8_t byte = nibbles[k >> 3][row * 4 + (k & 3)];
  return (k & 4) ? byte >> 4 : byte & 15;
}

// Integer weight of (row, k), zero point removed.
static inline int tile_weight(const TileE4_16& tile, int row, int k) {
  return kLutE4[tile_nibble(tile.nibbles, row, k)] + kLutE4Shift * (tile.sc[k >> 4][row] & 1) -
         kLutE4Zero;
}
static inline int tile_weight(const TileE4_32& tile, int row, int k) {
  return kLutE4[tile_nibble(tile.nibbles, row, k)] + kLutE4Shift * (tile.sc[row] & 1) - kLutE4Zero;
}
static inline int tile_weight(const TileE6_16& tile, int row, int k) {
  const int quad = k >> 2;
  const int high = (tile.hi[quad >> 2][row * 4 + (k & 3)] >> (2 * (quad & 3))) & 3;
  return tile_nibble(tile.nibbles, row, k) + 16 * high - kE6Zero;
}
static inline int tile_weight(const TileE8_32& tile, int row, int k) {
  return tile.quads[k >> 2][row * 4 + (k & 3)] - kE8Zero;
}

static inline int tile_weight(const TileL4_32& tile, int row, int k) {
  return tile_nibble(tile.nibbles, row, k) - tile.zero[row];
}

// Integer scale of the group that (row, k) belongs to.
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
static inline float tile_value(const TileF16& tile, int row, int k) {
  return half_to_float(tile.w[k][row]);
}

}  // namespace edge
