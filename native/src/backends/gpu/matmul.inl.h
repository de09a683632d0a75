// Products of weights in tiles with rows of activations. Included after a dialect.
#include "backends/gpu/strip_sums.inl.h"

using namespace EDGE_DEVICE;

template <class F, int K>
EDGE_KERNEL(matmul_a8, MatmulArgs, kMatmulThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, x, [kChunkTiles * K * kTileRows]);
  const int row = at.index % kTileRows, slot = at.index / kTileRows;
  const int row0 = at.y * K;
  const int n_rows = smaller(static_cast<int>(args.act.n_rows) - row0, K);
  const RowBlocks first = blocks_of(args.act, row0);  // the others follow in the same panel
  RowBlocks rows[K];
  EDGE_UNROLL
  for (int k = 0; k < K; ++k) rows[k] = {first.first + k, first.step};
  const float sum = strip_sum_a8<F, K>(at, args.w, strip_of(args.w, at.x), args.act, rows, n_rows,
                                       {first.first + slot, first.step}, x);
  if (slot >= n_rows) return;
  args.y[(row0 + slot) * args.stride + static_cast<int64_t>(kTileRows) * at.x + row] = sum;
}

template <class F>
EDGE_KERNEL(matmul_f32, MatmulArgs, kMatmulF32Threads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, sums, [kMatmulF32Threads]);
  EDGE_GLOBAL const float* a = args.f + at.y * args.f_stride;
  const float sum = strip_sum_f32<F>(at, args.w, strip_of(args.w, at.x), a, sums);
  if (at.index >= kTileRows) return;
  args.y[at.y * args.stride + static_cast<int64_t>(kTileRows) * at.x + at.index] = sum;
}

EDGE_KERNEL(add_pairs, AddPairsArgs, kElementThreads) {
  const At at = EDGE_AT;
  const int64_t i = static_cast<int64_t>(at.x) * kElementThreads + at.index;
  if (i >= args.n) return;
  EDGE_GLOBAL const float* value = args.parts + 2 * at.y * args.n;
  args.y[at.y * args.stride + i] = value[i] + value[args.n + i];
}

EDGE_EXPORT(add_pairs)
#define EDGE_EXPORT_A8(F)                            \
  EDGE_EXPORT_AS("matmul_a8_1_" #F, matmul_a8, F, 1) \
  EDGE_EXPORT_AS("matmul_a8_2_" #F, matmul_a8, F, 2) \
  EDGE_EXPORT_AS("matmul_a8_4_" #F, matmul_a8, F, 4) \
  EDGE_EXPORT_AS("matmul_a8_8_" #F, matmul_a8, F, 8)
EDGE_INTEGER_FORMATS(EDGE_EXPORT_A8)
#define EDGE_EXPORT_F32(F) EDGE_EXPORT_AS("matmul_f32_" #F, matmul_f32, F)
EDGE_FORMATS(EDGE_EXPORT_F32)
