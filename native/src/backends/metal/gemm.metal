// Products with many rows of activations as float matrices of 8 x 8: a path of its own, off unless
// asked for (gpu/matmul_plan.h), since its sums are in another order than the CPU's and have not
// its bits; outputs differ by less than 2e-2 of the largest.
//
// A group makes two strips times 32 rows of activations, two tiles at a time: both become floats in
// threadgroup memory, and each of four simdgroups multiplies one strip with 16 rows.
#include "backends/metal/dialect.h"

#include "backends/gpu/act_blocks.inl.h"
#include "backends/gpu/weight_tiles.inl.h"

namespace EDGE_DEVICE {

EDGE_CONSTANT int kFloatTiles = 2;
EDGE_CONSTANT int kFloatCols = kFloatTiles * kTileK;  // at a time
EDGE_CONSTANT int kFloatRowsOut = kFloatStrips * kTileRows;

// A thread makes 16 weights of a row: half `half` of tile `tile`.
template <class F>
EDGE_FN void unpack_half(EDGE_ARGS MatmulArgs& args, int64_t number, int64_t tile, int row, int half,
                         EDGE_GROUP float* to) {
  const bool is_there = tile < args.w.n_tiles;
  EDGE_GLOBAL const uint8_t* strip =
      strip_of(args.w, number < args.n_strips ? number : args.n_strips - 1);
  const typename F::Row weights =
      row_of_tile<F>(args.w, strip, is_there ? tile : args.w.n_tiles - 1, row);
  for (int k = 16 * half; k < 16 * half + 16; ++k) {
    to[k * kTileRows + row] = is_there ? weights.value(k) : 0.0f;
  }
}

// 16 activations of a row.
EDGE_FN void unpack_acts(EDGE_ARGS Panels& act, int64_t row, int64_t block, int half,
                         EDGE_GROUP float* to) {
  const bool is_there = row < act.n_rows && block < act.n_blocks;
  const int64_t at = is_there ? block_index(act, row, block) : 0;
  const float d = is_there ? act.d[at] : 0.0f;
  for (int i = 0; i < 16; ++i) {
    to[i] = d * static_cast<float>(act.q[kBlockCols * at + 16 * half + i]);
  }
}

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

template <class F>
EDGE_KERNEL(gemm_float, MatmulArgs, kFloatThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, weights, [kFloatStrips * kFloatCols * kTileRows]);
  EDGE_SHARED(float, acts, [kFloatRows * kFloatCols]);
  EDGE_SHARED(float, sums, [kFloatRows * kFloatRowsOut]);
  const int64_t row0 = static_cast<int64_t>(at.x) * kFloatRows;
  const int64_t strip0 = static_cast<int64_t>(at.y) * kFloatStrips;
  const int warp = at.index / kWarp, strip = warp / 2, first = warp % 2 * 16;
  simdgroup_float8x8 d[2][2];
  for (int i = 0; i < 4; ++i) d[i / 2][i % 2] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  for (int64_t tile0 = 0; tile0 < args.w.n_tiles; tile0 += kFloatTiles) {
    {
      const int row = at.index % 16, half = at.index / 16 % 2, tile = at.index / 32 % kFloatTiles;
      const int of = at.index / (32 * kFloatTiles);
      unpack_half<F>(args, strip0 + of, tile0 + tile, row, half,
                     weights + (of * kFloatCols + tile * kTileK) * kTileRows);
      const int act_row = at.index / 4, part = at.index % 4;
      unpack_acts(args.act, row0 + act_row, tile0 + part / 2, part % 2,
                  acts + act_row * kFloatCols + 16 * part);
    }
    EDGE_SYNC();
    for (int k = 0; k < kFloatCols; k += 8) {
      simdgroup_float8x8 a[2], b[2];
      for (int i = 0; i < 2; ++i) {
        simdgroup_load(a[i], acts + (first + 8 * i) * kFloatCols + k, kFloatCols);
        simdgroup_load(b[i], weights + (strip * kFloatCols + k) * kTileRows + 8 * i, kTileRows);
      }
      for (int i = 0; i < 4; ++i) {
        simdgroup_multiply_accumulate(d[i / 2][i % 2], a[i / 2], b[i % 2], d[i / 2][i % 2]);
      }
    }
    EDGE_SYNC();
  }

  for (int i = 0; i < 4; ++i) {
    EDGE_GROUP float* to = sums + (first + 8 * (i / 2)) * kFloatRowsOut;
    simdgroup_store(d[i / 2][i % 2], to + strip * kTileRows + 8 * (i % 2), kFloatRowsOut);
  }
  EDGE_SYNC();
  for (int i = at.index; i < kFloatRows * kFloatRowsOut; i += kFloatThreads) {
    const int64_t act_row = row0 + i / kFloatRowsOut;
    const int row = i % kFloatRowsOut;
    const int64_t number = strip0 + row / kTileRows;
    if (act_row >= args.act.n_rows || number >= args.n_strips) continue;
    EDGE_GLOBAL const float* d_rows =
        reinterpret_cast<EDGE_GLOBAL const float*>(strip_of(args.w, number));
    args.y[act_row * args.stride + kTileRows * strip0 + row] = sums[i] * d_rows[row % kTileRows];
  }
}

#define EDGE_EXPORT_FLOAT(F) EDGE_EXPORT_AS("gemm_float_" #F, gemm_float, F)
EDGE_INTEGER_FORMATS(EDGE_EXPORT_FLOAT)
