// Activations as int8 in blocks of 32 columns and panels of 16 rows (Int8Rows), and how a warp
// writes a block. Included after a dialect.
#pragma once

#include "backends/gpu/lane.inl.h"

namespace EDGE_DEVICE {

EDGE_CONSTANT int kPanel = 16;
EDGE_CONSTANT int kBlockCols = 32;

EDGE_FN int64_t block_index(EDGE_ARGS Panels& panels, int64_t row, int64_t block) {
  const int64_t panel = row / kPanel;
  const int64_t left = panels.n_rows - panel * kPanel;
  const int64_t panel_rows = left < kPanel ? left : kPanel;
  return panel * kPanel * panels.n_blocks + block * panel_rows + row % kPanel;
}

// Where the blocks of a row of activations stand: so many blocks apart.
struct RowBlocks {
  int64_t first;
  int step;
  EDGE_MEMBER_FN int64_t at(int64_t tile) const { return first + tile * step; }
};
EDGE_FN RowBlocks blocks_of(EDGE_ARGS Panels& act, int64_t row) {
  const int64_t first = block_index(act, row, 0);
  return {first, static_cast<int>(block_index(act, row, 1) - first)};
}

EDGE_FN int level(float x, float inverse) {
  const int q = scalar::lane_to_int(x * inverse);
  return q > 127 ? 127 : q < -127 ? -127 : q;
}

EDGE_FN void store_block(int lane, EDGE_ARGS Panels& to, int64_t at, int q, float scale) {
  int sum = q;
  for (int lanes = 8; lanes > 0; lanes /= 2) sum += EDGE_XOR_LANE(sum, lanes);
  to.q[kBlockCols * at + lane] = static_cast<int8_t>(q);
  if (lane == 0) to.d[at] = scale;
  if (lane % 16 == 0) to.bias[2 * at + lane / 16] = -64 * sum;
}

// Block `block` of row `row`, of which this lane has column y (kernels/elementwise.h,
// quantize_row).
EDGE_FN void write_block(At at, EDGE_ARGS Act& out, int64_t row, int64_t block, float y,
                         EDGE_GLOBAL int32_t* flag) {
  const int lane = at.index % kWarp;
  if (out.f != nullptr) out.f[row * out.n_cols_padded + kBlockCols * block + lane] = y;
  const int largest = warp_max(magnitude_bits(y));
  if (largest > 0x7f7fffff) {
    if (lane == 0) *flag = 1;
    return;
  }
  const float amax = float_of(largest);
  const bool is_zero = amax < 0x1p-100f;
  const float scale = is_zero ? 0.0f : amax / 127.0f;
  const int q = level(y, is_zero ? 0.0f : 127.0f / amax);
  if (out.a8.q != nullptr) store_block(lane, out.a8, block_index(out.a8, row, block), q, scale);
  if (out.a8x2.q == nullptr) return;
  const int64_t first = block_index(out.a8x2, 2 * row, block);
  const float rest = fma_exact(-static_cast<float>(q), scale, y);
  store_block(lane, out.a8x2, first, q, scale);
  store_block(lane, out.a8x2, first + 1, level(rest, is_zero ? 0.0f : 254.0f / scale),
              scale / 254.0f);
}

}  // namespace EDGE_DEVICE
