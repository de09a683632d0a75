#version 460
#include "chains.glsl"
EDGE_ARGS(MatmulArgs)
layout(local_size_x = kMatmulF32Threads) in;

void main() {
  uint8_t_ptr strip = strip_of(args.w, GROUP.x);
  const float total = float_product(args.w, strip, AT(args.f, GROUP.y * args.f_stride));
  const int row = THREAD % kTileRows;
  if (THREAD != row) return;
  const int64_t to = GROUP.y * args.stride + int64_t(kTileRows) * GROUP.x + row;
  AT(args.y, to).v = mul(total, row_factor(strip, row));
}
