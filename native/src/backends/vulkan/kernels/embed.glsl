// One element of a matrix in tiles, for embeddings and learned positions.
#include "weight_tiles.glsl"
EDGE_ARGS(EmbedArgs)
layout(local_size_x = kElementThreads) in;

float element(Matrix w, int64_t row, int64_t col) {
  uint8_t_ptr strip = strip_of(w, row / kTileRows);
  const int lane = int(row % kTileRows);
  TileRow weights = row_of_tile(w, strip, col / kTileK, lane);
  return mul(row_factor(strip, lane), tile_value(weights, int(col % kTileK)));
}
