// Where a row begins: its embedding and its learned position. Included after a dialect.
#include "backends/gpu/weight_tiles.inl.h"

namespace EDGE_DEVICE {

// Of a matrix in tiles: quant/decode.h.
template <class F>
EDGE_FN float element(EDGE_ARGS Matrix& w, int64_t row, int64_t col) {
  EDGE_GLOBAL const uint8_t* strip = strip_of(w, row / kTileRows);
  const int lane = static_cast<int>(row % kTileRows);
  const float d_row = reinterpret_cast<EDGE_GLOBAL const float*>(strip)[lane];
  const typename F::Row weights = row_of_tile<F>(w, strip, col / kTileK, lane);
  return d_row * weights.value(static_cast<int>(col % kTileK));
}

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

template <class F>
EDGE_KERNEL(embed, EmbedArgs, kElementThreads) {
  const At at = EDGE_AT;
  const int64_t col = static_cast<int64_t>(at.x) * kElementThreads + at.index;
  if (col >= args.x.n_cols) return;
  const float value = element<F>(args.table, args.rows.rows[at.y].token, col);
  args.x.data[at.y * args.x.stride + col] = args.scale == 1 ? value : value * args.scale;
}

template <class F>
EDGE_KERNEL(positions, EmbedArgs, kElementThreads) {
  const At at = EDGE_AT;
  const int64_t col = static_cast<int64_t>(at.x) * kElementThreads + at.index;
  if (col >= args.x.n_cols) return;
  EDGE_GLOBAL float* to = args.x.data + at.y * args.x.stride + col;
  *to = *to + element<F>(args.table, args.rows.rows[at.y].position, col);
}

EDGE_KERNEL(plain_positions, EmbedArgs, kElementThreads) {
  const At at = EDGE_AT;
  const int64_t col = static_cast<int64_t>(at.x) * kElementThreads + at.index;
  if (col >= args.x.n_cols) return;
  EDGE_GLOBAL const float* table = reinterpret_cast<EDGE_GLOBAL const float*>(args.table.strips);
  EDGE_GLOBAL float* to = args.x.data + at.y * args.x.stride + col;
  *to = *to + table[args.rows.rows[at.y].position * args.x.n_cols + col];
}

EDGE_EXPORT(plain_positions)
#define EDGE_EXPORT_EMBED(F)            \
  EDGE_EXPORT_AS("embed_" #F, embed, F) \
  EDGE_EXPORT_AS("positions_" #F, positions, F)
EDGE_FORMATS(EDGE_EXPORT_EMBED)
