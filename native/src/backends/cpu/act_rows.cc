#include "backends/cpu/act_rows.h"

#include <algorithm>

#include "tensor/tile_shape.h"

namespace edge {

namespace {

Int8Rows int8_part(const Int8Rows& all, int64_t row0, int n_rows) {
  const int64_t at = row0 * all.n_blocks;
  return {n_rows, all.n_blocks, all.q + kTileK * at, all.d + at, all.bias + 2 * at};
}

void copy_int8_row(const Int8Rows& from, int from_row, const Int8Rows& to, int to_row) {
  for (int64_t block = 0; block < from.n_blocks; ++block) {
    const int64_t source = from.block_index(from_row, block);
    const int64_t target = to.block_index(to_row, block);
    std::copy_n(from.q + kTileK * source, kTileK, to.q + kTileK * target);
    to.d[target] = from.d[source];
    std::copy_n(from.bias + 2 * source, 2, to.bias + 2 * target);
  }
}

}  // namespace

bool write_act(const ElementwiseKernels& ops, const float* y, int64_t n, int r, int64_t column0,
               ActNeeds needs, ActRows& out) {
  const auto quantized = [&](auto quantize, const Int8Rows& rows, int row) {
    const int64_t at = rows.block_index(row, column0 / kTileK);
    return quantize(y, n, rows.panel_rows(row / kPanelRows), rows.q + kTileK * at, rows.d + at,
                    rows.bias + 2 * at);
  };
  bool finite = true;
  if (needs.a8) finite = quantized(ops.quantize_row, out.a8, r);
  if (needs.a8x2) finite = quantized(ops.quantize_row_x2, out.a8x2, 2 * r);
  if (!needs.a8 && !needs.a8x2) finite = ops.is_finite_row(y, n);
  return finite;
}

ActRows act_part(const ActRows& all, int64_t row0, int n_rows) {
  ActRows part = all;
  part.n_rows = n_rows;
  if (all.a8.q != nullptr) part.a8 = int8_part(all.a8, row0, n_rows);
  if (all.a8x2.q != nullptr) part.a8x2 = int8_part(all.a8x2, 2 * row0, 2 * n_rows);
  if (all.f != nullptr) part.f = all.f + row0 * all.n_cols_padded;
  return part;
}

void copy_act_row(const ActRows& from, int from_row, ActNeeds needs, ActRows& to, int to_row) {
  if (needs.a8) copy_int8_row(from.a8, from_row, to.a8, to_row);
  for (int half = 0; needs.a8x2 && half < 2; ++half) {
    copy_int8_row(from.a8x2, 2 * from_row + half, to.a8x2, 2 * to_row + half);
  }
  if (needs.f32) {
    std::copy_n(from.f + from_row * from.n_cols_padded, from.n_cols_padded,
                to.f + to_row * to.n_cols_padded);
  }
}

}  // namespace edge
