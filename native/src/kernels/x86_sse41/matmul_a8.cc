// E formats x int8 for CPUs without AVX2. Sixteen xmm: 4 sums of a strip x 1 row; a product takes
// the register of its weights, so a second row would save no load.
#include "base/inline.h"
#include "kernels/matmul_args.h"
#include "kernels/x86_sse41/bytes16.h"
#include "quant/tile_stream.h"
#include "quant/tiles.h"

namespace edge {
namespace x86_sse41 {
namespace {
constexpr int kRowsOfBytes = 1;
// clang-format off: formats are written on the gemm
#include "kernels/generic/gemm_a8.inl.h"
#include "kernels/generic/tile_quads.inl.h"
#include "kernels/generic/madd_formats.inl.h"
#include "kernels/generic/linear_format.inl.h"
// clang-format on
}  // namespace
}  // namespace x86_sse41

void matmul_e2_16_a8_sse41(const MatmulArgs& args) { x86_sse41::matmul<x86_sse41::E2_16>(args); }
void matmul_e3_32_a8_sse41(const MatmulArgs& args) { x86_sse41::matmul<x86_sse41::E3_32>(args); }
void matmul_e4_16_a8_sse41(const MatmulArgs& args) { x86_sse41::matmul<x86_sse41::E4_16>(args); }
void matmul_e4_32_a8_sse41(const MatmulArgs& args) { x86_sse41::matmul<x86_sse41::E4_32>(args); }
void matmul_e6_16_a8_sse41(const MatmulArgs& args) { x86_sse41::matmul<x86_sse41::E6_16>(args); }
void matmul_e8_32_a8_sse41(const MatmulArgs& args) { x86_sse41::matmul<x86_sse41::E8_32>(args); }
void gemm_e2_16_a8_sse41(const MatmulArgs& args) { x86_sse41::gemm<x86_sse41::E2_16>(args); }
void gemm_e3_32_a8_sse41(const MatmulArgs& args) { x86_sse41::gemm<x86_sse41::E3_32>(args); }
void gemm_e4_16_a8_sse41(const MatmulArgs& args) { x86_sse41::gemm<x86_sse41::E4_16>(args); }
void gemm_e4_32_a8_sse41(const MatmulArgs& args) { x86_sse41::gemm<x86_sse41::E4_32>(args); }
void gemm_e6_16_a8_sse41(const MatmulArgs& args) { x86_sse41::gemm<x86_sse41::E6_16>(args); }
void gemm_e8_32_a8_sse41(const MatmulArgs& args) { x86_sse41::gemm<x86_sse41::E8_32>(args); }
void matmul_k4_32_a8_sse41(const MatmulArgs& args) { x86_sse41::matmul<x86_sse41::K4_32>(args); }
void gemm_k4_32_a8_sse41(const MatmulArgs& args) { x86_sse41::gemm<x86_sse41::K4_32>(args); }
void matmul_l4_32_a8_sse41(const MatmulArgs& args) { x86_sse41::matmul<x86_sse41::L4_32>(args); }
void gemm_l4_32_a8_sse41(const MatmulArgs& args) { x86_sse41::gemm<x86_sse41::L4_32>(args); }
void matmul_l8_32_a8_sse41(const MatmulArgs& args) { x86_sse41::matmul<x86_sse41::L8_32>(args); }
void gemm_l8_32_a8_sse41(const MatmulArgs& args) { x86_sse41::gemm<x86_sse41::L8_32>(args); }

}  // namespace edge
