// E formats x int8 with the VEX forms of VNNI: AVX2 whose vpdpbusd multiplies four pairs of bytes
// and adds them to an i32. Tests compile this file a second time for AVX-512 VNNI and VL, whose ymm
// vpdpbusd computes the same: most machines that build this cannot run VEX VNNI.
#include "base/inline.h"
#include "kernels/matmul_args.h"
#include "kernels/x86_avx2/bytes16.h"
#include "quant/tile_stream.h"
#include "quant/tiles.h"

namespace edge {
namespace {
using namespace x86_avx2;
// clang-format off: formats are written on the gemm
#include "kernels/generic/gemm_a8.inl.h"
#include "kernels/generic/tile_quads.inl.h"
#include "kernels/x86_avxvnni/formats.inl.h"
#include "kernels/generic/linear_format.inl.h"
// clang-format on
}  // namespace

#ifdef EDGE_AVXVNNI_TWIN
#define EDGE_AVXVNNI(name) name##_avxvnni_twin
#else
#define EDGE_AVXVNNI(name) name##_avxvnni
#endif
void EDGE_AVXVNNI(matmul_e2_16_a8)(const MatmulArgs& args) { matmul<E2_16>(args); }
void EDGE_AVXVNNI(matmul_e3_32_a8)(const MatmulArgs& args) { matmul<E3_32>(args); }
void EDGE_AVXVNNI(matmul_e4_16_a8)(const MatmulArgs& args) { matmul<E4_16>(args); }
void EDGE_AVXVNNI(matmul_e4_32_a8)(const MatmulArgs& args) { matmul<E4_32>(args); }
void EDGE_AVXVNNI(matmul_e6_16_a8)(const MatmulArgs& args) { matmul<E6_16>(args); }
void EDGE_AVXVNNI(matmul_e8_32_a8)(const MatmulArgs& args) { matmul<E8_32>(args); }
void EDGE_AVXVNNI(gemm_e2_16_a8)(const MatmulArgs& args) { gemm<E2_16>(args); }
void EDGE_AVXVNNI(gemm_e3_32_a8)(const MatmulArgs& args) { gemm<E3_32>(args); }
void EDGE_AVXVNNI(gemm_e4_16_a8)(const MatmulArgs& args) { gemm<E4_16>(args); }
void EDGE_AVXVNNI(gemm_e4_32_a8)(const MatmulArgs& args) { gemm<E4_32>(args); }
void EDGE_AVXVNNI(gemm_e6_16_a8)(const MatmulArgs& args) { gemm<E6_16>(args); }
void EDGE_AVXVNNI(gemm_e8_32_a8)(const MatmulArgs& args) { gemm<E8_32>(args); }
void EDGE_AVXVNNI(matmul_k4_32_a8)(const MatmulArgs& args) { matmul<K4_32>(args); }
void EDGE_AVXVNNI(gemm_k4_32_a8)(const MatmulArgs& args) { gemm<K4_32>(args); }
void EDGE_AVXVNNI(matmul_l4_32_a8)(const MatmulArgs& args) { matmul<L4_32>(args); }
void EDGE_AVXVNNI(gemm_l4_32_a8)(const MatmulArgs& args) { gemm<L4_32>(args); }
void EDGE_AVXVNNI(matmul_l8_32_a8)(const MatmulArgs& args) { matmul<L8_32>(args); }
void EDGE_AVXVNNI(gemm_l8_32_a8)(const MatmulArgs& args) { gemm<L8_32>(args); }

}  // namespace edge
