#version 460
#include "chains.glsl"
#include "experts.glsl"
layout(local_size_x = kMatmulF32Threads) in;

void main() {
  uint8_t_ptr strip = strip_of_expert(AT(args.ids, GROUP.y).v, GROUP.x);
  const float total = float_product(args.w, strip, AT(args.f, row_in(GROUP.y, 0) * args.f_stride));
  const int row = THREAD % kTileRows;
  if (THREAD != row) return;
  const int64_t to = GROUP.y * args.stride + int64_t(kTileRows) * GROUP.x + row;
  AT(args.y, to).v = mul(total, row_factor(strip, row));
}
