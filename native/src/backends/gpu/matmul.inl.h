// Products of weights in tiles with rows of activations. Included after a dialect.
//
// The CPU's sum of a row is f = fma(x, d, f) over its tiles in order, x being exact or rounded
// once. Here a group takes a strip: each of its threads makes the x of one row of one tile for up
// to eight rows of activations, and then one thread for each row and each row of activations runs
// the chain. So a row has the CPU's bits whatever else is in the call, and what takes the time,
// reading and dot products, is parallel over the whole strip. A tile's words of 16 rows are 64
// bytes that 16 threads read side by side.
#include "backends/gpu/act_blocks.inl.h"
#include "backends/gpu/weight_tiles.inl.h"

namespace EDGE_DEVICE {

EDGE_CONSTANT int kSlots = kMatmulThreads / kTileRows;      // tiles at once
EDGE_CONSTANT int kChunkTiles = 32;                         // whose sums are kept
EDGE_CONSTANT int kChains = kMatmulF32Threads / kTileRows;  // of columns k mod 4

// Blocks of activation rows [row0, row0 + n) in their panel.
struct PanelPart {
  EDGE_GLOBAL const int8_t* q;
  EDGE_GLOBAL const float* d;
  EDGE_GLOBAL const int32_t* bias;
  int panel_rows;
  int n;
};
EDGE_FN PanelPart part_of(EDGE_ARGS Panels& all, int row0, int most) {
  const int n_rows = static_cast<int>(all.n_rows), panel = row0 / kPanel;
  const int64_t at = panel * kPanel * all.n_blocks + row0 % kPanel;
  PanelPart part;
  part.panel_rows = smaller(n_rows - panel * kPanel, kPanel);
  part.n = smaller(n_rows - row0, most);
  part.q = all.q + kTileK * at;
  part.d = all.d + at;
  part.bias = all.bias + 2 * at;
  return part;
}

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

template <class F, int K>
EDGE_KERNEL(matmul_a8, MatmulArgs, kMatmulThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, x, [kChunkTiles][K][kTileRows]);
  const int row = at.index % kTileRows, slot = at.index / kTileRows;
  const int row0 = at.y * K;
  EDGE_GLOBAL const uint8_t* strip = strip_of(args.w, at.x);
  const PanelPart part = part_of(args.act, row0, K);
  const bool is_chain = slot < part.n;  // of activation row `slot`
  float f = 0;
  for (int64_t tile0 = 0; tile0 < args.w.n_tiles; tile0 += kChunkTiles) {
    const int64_t left = args.w.n_tiles - tile0;
    const int n = left < kChunkTiles ? static_cast<int>(left) : kChunkTiles;
    for (int i = slot; i < n; i += kSlots) {
      const typename F::Row weights = row_of_tile<F>(args.w, strip, tile0 + i, row);
      const int64_t block = (tile0 + i) * part.panel_rows;
      EDGE_UNROLL
      for (int k = 0; k < K; ++k) {
        if (k >= part.n) break;
        int a[kTileK / 4];
        load_block(part.q + kTileK * (block + k), a);
        EDGE_GLOBAL const int32_t* bias = part.bias + 2 * (block + k);  // -64 times the sums
        x[i][k][row] = weights.sum(a, {{-(bias[0] >> 6), -(bias[1] >> 6)}});
      }
    }
    EDGE_SYNC();
    for (int i = 0; is_chain && i < n; ++i) {
      f = fma_exact(x[i][slot][row], part.d[(tile0 + i) * part.panel_rows + slot], f);
    }
    EDGE_SYNC();
  }
  if (!is_chain) return;
  const float d_row = reinterpret_cast<EDGE_GLOBAL const float*>(strip)[row];
  args.y[(row0 + slot) * args.stride + static_cast<int64_t>(kTileRows) * at.x + row] = f * d_row;
}

template <class F>
EDGE_KERNEL(matmul_f32, MatmulArgs, kMatmulF32Threads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, sums, [kChains][kTileRows]);
  const int row = at.index % kTileRows, chain = at.index / kTileRows;
  EDGE_GLOBAL const uint8_t* strip = strip_of(args.w, at.x);
  EDGE_GLOBAL const float* a = args.f + at.y * args.f_stride;
  float sum = 0;
  for (int64_t tile = 0; tile < args.w.n_tiles; ++tile) {
    const typename F::Row weights = row_of_tile<F>(args.w, strip, tile, row);
    for (int k = chain; k < kTileK; k += kChains) {
      sum = fma_exact(weights.value(k), a[kTileK * tile + k], sum);
    }
  }
  sums[chain][row] = sum;
  EDGE_SYNC();
  if (chain != 0) return;
  const float total = (sums[0][row] + sums[1][row]) + (sums[2][row] + sums[3][row]);
  const float d_row = reinterpret_cast<EDGE_GLOBAL const float*>(strip)[row];
  args.y[at.y * args.stride + static_cast<int64_t>(kTileRows) * at.x + row] = total * d_row;
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
