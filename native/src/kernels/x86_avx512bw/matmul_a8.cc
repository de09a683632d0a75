// E formats x int8, AVX-512 without VNNI: 8 sums of a strip x 8 rows.
#include "base/inline.h"
#include "kernels/matmul_args.h"
#include "kernels/x86_avx512bw/bytes16.h"
#include "quant/tile_stream.h"
#include "quant/tiles.h"

namespace edge {
namespace x86_avx512bw {
namespace {
constexpr int kRowsOfBytes = 8;
// clang-format off: formats are written on the gemm
#include "kernels/generic/gemm_a8.inl.h"
#include "kernels/generic/tile_quads.inl.h"
#include "kernels/generic/madd_formats.inl.h"
#include "kernels/generic/linear_format.inl.h"
// clang-format on
}  // namespace
}  // namespace x86_avx512bw

void matmul_e2_16_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul<x86_avx512bw::E2_16>(args);
}
void matmul_e3_32_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul<x86_avx512bw::E3_32>(args);
}
void matmul_e4_16_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul<x86_avx512bw::E4_16>(args);
}
void matmul_e4_32_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul<x86_avx512bw::E4_32>(args);
}
void matmul_e6_16_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul<x86_avx512bw::E6_16>(args);
}
void matmul_e8_32_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul<x86_avx512bw::E8_32>(args);
}
void gemm_e2_16_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::gemm<x86_avx512bw::E2_16>(args);
}
void gemm_e3_32_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::gemm<x86_avx512bw::E3_32>(args);
}
void gemm_e4_16_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::gemm<x86_avx512bw::E4_16>(args);
}
void gemm_e4_32_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::gemm<x86_avx512bw::E4_32>(args);
}
void gemm_e6_16_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::gemm<x86_avx512bw::E6_16>(args);
}
void gemm_e8_32_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::gemm<x86_avx512bw::E8_32>(args);
}
void matmul_k4_32_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul<x86_avx512bw::K4_32>(args);
}
void gemm_k4_32_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::gemm<x86_avx512bw::K4_32>(args);
}
void matmul_l4_32_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul<x86_avx512bw::L4_32>(args);
}
void gemm_l4_32_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::gemm<x86_avx512bw::L4_32>(args);
}
void matmul_l8_32_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::matmul<x86_avx512bw::L8_32>(args);
}
void gemm_l8_32_a8_avx512bw(const MatmulArgs& args) {
  x86_avx512bw::gemm<x86_avx512bw::L8_32>(args);
}

}  // namespace edge
