#include "backends/gpu/launcher.h"

namespace edge::gpu {

Matrix Launcher::matrix_of(const Tensor& weight) {
  Matrix w = {};
  w.strips =
      reinterpret_cast<const uint8_t*>(loaded(weight.data, static_cast<int64_t>(weight.n_bytes)));
  w.n_tiles = weight.n_tiles();
  w.strip_bytes = static_cast<int64_t>(strip_bytes(weight.format, w.n_tiles));
  w.tiles_offset = w.strip_bytes - static_cast<int64_t>(tile_bytes(weight.format)) * w.n_tiles;
  return w;
}

Act Launcher::act_of(const ActRows& rows, ActNeeds needs) {
  Act act = {};
  if (needs.a8) act.a8 = panels_of(rows.a8);
  if (needs.a8x2) act.a8x2 = panels_of(rows.a8x2);
  if (needs.f32) act.f = at(rows.f);
  act.n_cols_padded = rows.n_cols_padded;
  return act;
}

}  // namespace edge::gpu
