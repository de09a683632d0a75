// What a strip of weights in tiles gives with rows of activations. Included after a dialect.
//
// The CPU's sum of a row is f = fma(x, d, f) over its tiles in order, x being exact or rounded
// once. Here a group takes a strip: each of its threads makes the x of one row of one tile for up
// to eight rows of activations, and then one thread for each row and each row of activations runs
// the chain. So a row has the CPU's bits whatever else is in the call, and what takes the time,
// reading and dot products, is parallel over the whole strip. A tile's words of 16 rows are 64
// bytes that 16 threads read side by side.
#pragma once

#include "backends/gpu/act_blocks.inl.h"
#include "backends/gpu/weight_tiles.inl.h"

namespace EDGE_DEVICE {

EDGE_CONSTANT int kSlots = kMatmulThreads / kTileRows;      // tiles at once
EDGE_CONSTANT int kChunkTiles = 32;                         // whose x are kept
EDGE_CONSTANT int kChains = kMatmulF32Threads / kTileRows;  // of columns k mod 4

// Of kMatmulThreads threads: the sum of the strip's row `index % 16` with activations `own`, those
// of rows[index / 16] where there are so many. x: kChunkTiles * K * kTileRows floats.
template <class F, int K>
EDGE_FN float strip_sum_a8(At at, EDGE_ARGS Matrix& w, EDGE_GLOBAL const uint8_t* strip,
                           EDGE_ARGS Panels& act, EDGE_LOCAL const RowBlocks (&rows)[K], int n_rows,
                           RowBlocks own, EDGE_GROUP float* x) {
  const int row = at.index % kTileRows, slot = at.index / kTileRows;
  float f = 0;
  for (int64_t tile0 = 0; tile0 < w.n_tiles; tile0 += kChunkTiles) {
    const int64_t left = w.n_tiles - tile0;
    const int n = left < kChunkTiles ? static_cast<int>(left) : kChunkTiles;
    for (int i = slot; i < n; i += kSlots) {
      const typename F::Row weights = row_of_tile<F>(w, strip, tile0 + i, row);
      EDGE_UNROLL
      for (int k = 0; k < K; ++k) {
        if (k >= n_rows) break;
        const int64_t block = rows[k].at(tile0 + i);
        int a[kTileK / 4];
        load_block(act.q + kTileK * block, a);
        EDGE_GLOBAL const int32_t* bias = act.bias + 2 * block;  // -64 times the sums
        x[(i * K + k) * kTileRows + row] = weights.sum(a, {{-(bias[0] >> 6), -(bias[1] >> 6)}});
      }
    }
    EDGE_SYNC();
    for (int i = 0; slot < n_rows && i < n; ++i) {
      f = fma_exact(x[(i * K + slot) * kTileRows + row], act.d[own.at(tile0 + i)], f);
    }
    EDGE_SYNC();
  }
  return f * reinterpret_cast<EDGE_GLOBAL const float*>(strip)[row];
}

// Of kMatmulF32Threads threads, of which the first 16 get it: the sum of row `index` with
// activations a. sums: kMatmulF32Threads floats.
template <class F>
EDGE_FN float strip_sum_f32(At at, EDGE_ARGS Matrix& w, EDGE_GLOBAL const uint8_t* strip,
                            EDGE_GLOBAL const float* a, EDGE_GROUP float* sums) {
  const int row = at.index % kTileRows, chain = at.index / kTileRows;
  float sum = 0;
  for (int64_t tile = 0; tile < w.n_tiles; ++tile) {
    const typename F::Row weights = row_of_tile<F>(w, strip, tile, row);
    for (int k = chain; k < kTileK; k += kChains) {
      sum = fma_exact(weights.value(k), a[kTileK * tile + k], sum);
    }
  }
  sums[at.index] = sum;
  EDGE_SYNC();
  if (chain != 0) return 0;
  const float total =
      (sums[row] + sums[kTileRows + row]) + (sums[2 * kTileRows + row] + sums[3 * kTileRows + row]);
  return total * reinterpret_cast<EDGE_GLOBAL const float*>(strip)[row];
}

}  // namespace EDGE_DEVICE
