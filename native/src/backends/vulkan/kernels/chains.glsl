// Products of float activations: four chains of columns k mod 4 for a row (gpu/matmul.inl.h).
#include "weight_tiles.glsl"

const int kChains = kMatmulF32Threads / kTileRows;
shared float chains[kChains][kTileRows];

// Of row THREAD % kTileRows of the strip; for threads of chain 0.
float float_product(Matrix w, uint8_t_ptr strip, float_ptr a) {
  const int row = THREAD % kTileRows, chain = THREAD / kTileRows;
  float sum = 0.0;
  for (int64_t tile = 0; tile < w.n_tiles; ++tile) {
    TileRow weights = row_of_tile(w, strip, tile, row);
    for (int k = chain; k < kTileK; k += kChains) {
      sum = fma_exact(tile_value(weights, k), AT(a, kTileK * tile + k).v, sum);
    }
  }
  chains[chain][row] = sum;
  SYNC();
  return add(add(chains[0][row], chains[1][row]), add(chains[2][row], chains[3][row]));
}
