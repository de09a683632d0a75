#version 460
#include "products.glsl"
#include "experts.glsl"
layout(local_size_x = kMatmulThreads) in;

void main() {
  const ExpertPart part = AT(args.parts, GROUP.y).v;
  const int n_rows = part.n * args.halves;
  if (n_rows == 0) return;
  const int row = THREAD % kTileRows, slot = THREAD / kTileRows;
  uint8_t_ptr strip = strip_of_expert(part.expert, GROUP.x);
  int64_t first[8], step[8];  // of a row's blocks; they are so many blocks apart
  for (int k = 0; k < kMost; ++k) {
    const int known = smaller(k, n_rows - 1);
    const int pair = AT(args.order, part.first + known / args.halves).v;
    const int in_row = row_in(pair, known % args.halves);
    first[k] = block_index(args.act, in_row, 0);
    step[k] = block_index(args.act, in_row, 1) - first[k];
  }
  const bool is_chain = slot < n_rows;  // of the part's row `slot`
  const int pair = is_chain ? AT(args.order, part.first + slot / args.halves).v : 0;
  const int half_ = slot % args.halves;
  const int64_t own_first = is_chain ? block_index(args.act, row_in(pair, half_), 0) : 0l;
  const int64_t own_step = is_chain ? block_index(args.act, row_in(pair, half_), 1) - own_first : 0l;
  float f = 0.0;
  for (int64_t tile0 = 0; tile0 < args.w.n_tiles; tile0 += kChunkTiles) {
    const int64_t left = args.w.n_tiles - tile0;
    const int n = left < kChunkTiles ? int(left) : kChunkTiles;
    for (int i = slot; i < n; i += kSlots) {
      TileRow weights = row_of_tile(args.w, strip, tile0 + i, row);
      for (int k = 0; k < n_rows; ++k) {
        x_of[x_index(i, k, row)] = product_of(weights, args.act, first[k] + (tile0 + i) * step[k]);
      }
    }
    SYNC();
    for (int i = 0; is_chain && i < n; ++i) {
      const float d = AT(args.act.d, own_first + (tile0 + i) * own_step).v;
      f = fma_exact(x_of[x_index(i, slot, row)], d, f);
    }
    SYNC();
  }
  if (!is_chain) return;
  const int64_t to = args.halves * pair + half_;
  AT(args.y, to * args.stride + int64_t(kTileRows) * GROUP.x + row).v = mul(f, row_factor(strip, row));
}
