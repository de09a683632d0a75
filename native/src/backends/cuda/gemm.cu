// Products of a matrix with many rows of activations.
#include "backends/cuda/gemm_int8.h"

using namespace EDGE_DEVICE;

template <class F, int kRows, int kStrips>
static __global__ void EDGE_GEMM_BOUNDS(kStrips) gemm_a8(const MatmulArgs args) {
  const At at = EDGE_AT;
  const MatrixWork work = {args, int64_t{at.x} * kRows};
  multiply_strips<AsInt8<F>, kRows, kStrips>(work, at.index, int64_t{at.y} * kStrips);
}

#define EDGE_EXPORT_GEMM(F)                           \
  EDGE_EXPORT_AS("gemm_a8_16_" #F, gemm_a8, F, 16, 2) \
  EDGE_EXPORT_AS("gemm_a8_32_" #F, gemm_a8, F, 32, 2) \
  EDGE_EXPORT_AS("gemm_a8_64_" #F, gemm_a8, F, 64, 4)
EDGE_INTEGER_FORMATS(EDGE_EXPORT_GEMM)
