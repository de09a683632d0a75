#include "base/inline.h"
#include "kernels/matmul_args.h"
#include "kernels/x86_avx512bw/vec16.h"
#include "quant/tile_weights.h"

namespace edge::x86_avx512bw {
#include "kernels/generic/matmul_f32.inl.h"
}  // namespace edge::x86_avx512bw

namespace edge {

void matmul_f16_f32_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul_f32<x86_avx512bw::F16Columns, TileF16>(args);
}
void matmul_e2_16_f32_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul_f32<x86_avx512bw::DecodedColumns<TileE2_16>, TileE2_16>(args);
}
void matmul_e3_32_f32_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul_f32<x86_avx512bw::DecodedColumns<TileE3_32>, TileE3_32>(args);
}
void matmul_e4_16_f32_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul_f32<x86_avx512bw::DecodedColumns<TileE4_16>, TileE4_16>(args);
}
void matmul_e4_32_f32_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul_f32<x86_avx512bw::DecodedColumns<TileE4_32>, TileE4_32>(args);
}
void matmul_e6_16_f32_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul_f32<x86_avx512bw::DecodedColumns<TileE6_16>, TileE6_16>(args);
}
void matmul_e8_32_f32_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul_f32<x86_avx512bw::DecodedColumns<TileE8_32>, TileE8_32>(args);
}
void matmul_k4_32_f32_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul_f32<x86_avx512bw::DecodedColumns<TileK4_32>, TileK4_32>(args);
}
void matmul_l4_32_f32_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul_f32<x86_avx512bw::DecodedColumns<TileL4_32>, TileL4_32>(args);
}
void matmul_l8_32_f32_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul_f32<x86_avx512bw::DecodedColumns<TileL8_32>, TileL8_32>(args);
}

}  // namespace edge
