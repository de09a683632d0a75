#version 460
#include "products.glsl"
EDGE_ARGS(MatmulArgs)
layout(local_size_x = kMatmulThreads) in;

void main() {
  const int row = THREAD % kTileRows, slot = THREAD / kTileRows;
  const int row0 = GROUP.y * kMost;
  const int n_rows = int(args.act.n_rows), panel_row0 = row0 / kPanel * kPanel;
  const int panel_rows = smaller(n_rows - panel_row0, kPanel), n_here = smaller(n_rows - row0, kMost);
  const int64_t at = panel_row0 * args.act.n_blocks + row0 % kPanel;
  uint8_t_ptr strip = strip_of(args.w, GROUP.x);
  const bool is_chain = slot < n_here;  // of activation row `slot`
  float f = 0.0;
  for (int64_t tile0 = 0; tile0 < args.w.n_tiles; tile0 += kChunkTiles) {
    const int64_t left = args.w.n_tiles - tile0;
    const int n = left < kChunkTiles ? int(left) : kChunkTiles;
    for (int i = slot; i < n; i += kSlots) {
      TileRow weights = row_of_tile(args.w, strip, tile0 + i, row);
      const int64_t block = at + (tile0 + i) * panel_rows;
      for (int k = 0; k < n_here; ++k) {
        x_of[x_index(i, k, row)] = product_of(weights, args.act, block + k);
      }
    }
    SYNC();
    for (int i = 0; is_chain && i < n; ++i) {
      const float d = AT(args.act.d, at + (tile0 + i) * panel_rows + slot).v;
      f = fma_exact(x_of[x_index(i, slot, row)], d, f);
    }
    SYNC();
  }
  if (!is_chain) return;
  const int64_t to = (row0 + slot) * args.stride + int64_t(kTileRows) * GROUP.x + row;
  AT(args.y, to).v = mul(f, row_factor(strip, row));
}
