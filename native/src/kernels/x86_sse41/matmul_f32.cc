#include "base/inline.h"
#include "kernels/matmul_args.h"
#include "kernels/x86_sse41/vec16.h"
#include "quant/tile_weights.h"

namespace edge::x86_sse41 {
#include "kernels/generic/matmul_f32.inl.h"
}  // namespace edge::x86_sse41

namespace edge {

void matmul_f16_f32_sse41(const MatmulArgs& args) {
  x86_sse41::matmul_f32<x86_sse41::F16Columns, TileF16>(args);
}
void matmul_e2_16_f32_sse41(const MatmulArgs& args) {
  x86_sse41::matmul_f32<x86_sse41::DecodedColumns<TileE2_16>, TileE2_16>(args);
}
void matmul_e3_32_f32_sse41(const MatmulArgs& args) {
  x86_sse41::matmul_f32<x86_sse41::DecodedColumns<TileE3_32>, TileE3_32>(args);
}
void matmul_e4_16_f32_sse41(const MatmulArgs& args) {
  x86_sse41::matmul_f32<x86_sse41::DecodedColumns<TileE4_16>, TileE4_16>(args);
}
void matmul_e4_32_f32_sse41(const MatmulArgs& args) {
  x86_sse41::matmul_f32<x86_sse41::DecodedColumns<TileE4_32>, TileE4_32>(args);
}
void matmul_e6_16_f32_sse41(const MatmulArgs& args) {
  x86_sse41::matmul_f32<x86_sse41::DecodedColumns<TileE6_16>, TileE6_16>(args);
}
void matmul_e8_32_f32_sse41(const MatmulArgs& args) {
  x86_sse41::matmul_f32<x86_sse41::DecodedColumns<TileE8_32>, TileE8_32>(args);
}
void matmul_k4_32_f32_sse41(const MatmulArgs& args) {
  x86_sse41::matmul_f32<x86_sse41::DecodedColumns<TileK4_32>, TileK4_32>(args);
}
void matmul_l4_32_f32_sse41(const MatmulArgs& args) {
  x86_sse41::matmul_f32<x86_sse41::DecodedColumns<TileL4_32>, TileL4_32>(args);
}
void matmul_l8_32_f32_sse41(const MatmulArgs& args) {
  x86_sse41::matmul_f32<x86_sse41::DecodedColumns<TileL8_32>, TileL8_32>(args);
}

}  // namespace edge
