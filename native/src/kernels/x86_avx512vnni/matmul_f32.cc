#include "base/inline.h"
#include "kernels/matmul_args.h"
#include "kernels/x86_avx512vnni/vec16.h"
#include "quant/tile_weights.h"

namespace edge::x86_avx512vnni {
#include "kernels/generic/matmul_f32.inl.h"
}  // namespace edge::x86_avx512vnni

namespace edge {

void matmul_f16_f32_avx512vnni(const MatmulArgs& args) {
  x86_avx512vnni::matmul_f32<x86_avx512vnni::F16Columns, TileF16>(args);
}
void matmul_e4_16_f32_avx512vnni(const MatmulArgs& args) {
  x86_avx512vnni::matmul_f32<x86_avx512vnni::DecodedColumns<TileE4_16>, TileE4_16>(args);
}
void matmul_e4_32_f32_avx512vnni(const MatmulArgs& args) {
  x86_avx512vnni::matmul_f32<x86_avx512vnni::DecodedColumns<TileE4_32>, TileE4_32>(args);
}
void matmul_e6_16_f32_avx512vnni(const MatmulArgs& args) {
  x86_avx512vnni::matmul_f32<x86_avx512vnni::DecodedColumns<TileE6_16>, TileE6_16>(args);
}
void matmul_e8_32_f32_avx512vnni(const MatmulArgs& args) {
  x86_avx512vnni::matmul_f32<x86_avx512vnni::DecodedColumns<TileE8_32>, TileE8_32>(args);
}

}  // namespace edge
