// What products of int8 activations have in common. The CPU's sum of a row is f = fma(x, d, f) over
// its tiles in order, x being exact or rounded once: threads make the x of a chunk of tiles side by
// side, then one thread for each row and row of activations runs the chain (gpu/matmul.inl.h).
#include "blocks.glsl"
#include "weight_tiles.glsl"

layout(constant_id = 1) const int kMost = 1;  // rows of activations at once

const int kSlots = kMatmulThreads / kTileRows;  // tiles at once
const int kChunkTiles = 32;                     // whose sums are kept

shared float x_of[kChunkTiles * kMost * kTileRows];
int x_index(int tile, int k, int row) { return (tile * kMost + k) * kTileRows + row; }

// Of a block of 32 activations. Their sums stand beside them as -64 times themselves.
float product_of(TileRow weights, Panels act, int64_t block) {
  ivec4_ptr quads = AS(ivec4, AT(act.q, kTileK * block));
  const ivec4 first = AT(quads, 0).v, second = AT(quads, 1).v;
  const int a[8] = int[8](first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w);
  const ivec2 sums = ivec2(-(AT(act.bias, 2 * block).v >> 6), -(AT(act.bias, 2 * block + 1).v >> 6));
  return tile_sum(weights, a, sums);
}
