// Products of experts with many pairs: parts of the pairs, in the order of their experts.
#include "backends/cuda/gemm_int8.h"
#include "backends/gpu/expert_parts.inl.h"

namespace EDGE_DEVICE {

struct ExpertsWork {
  const ExpertsArgs& args;
  const ExpertPart& part;

  __device__ const Matrix& matrix() const { return args.w; }
  __device__ const Panels& act() const { return args.act; }
  __device__ int64_t n_strips() const { return args.expert_bytes / args.w.strip_bytes; }
  __device__ const uint8_t* strip(int64_t number) const {
    return strip_of_expert(args, part.expert, number);
  }
  __device__ bool has(int row) const { return row < part.n * args.halves; }
  __device__ int64_t act_row(int row) const { return rows_of_part(args, part, row).in; }
  __device__ float* out(int row) const {
    return args.y + rows_of_part(args, part, row).out * args.stride;
  }
};

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

template <class F, int kRows, int kStrips>
static __global__ void EDGE_GEMM_BOUNDS(kStrips) gemm_experts(const ExpertsArgs args) {
  const At at = EDGE_AT;
  const ExpertPart part = args.parts[at.x];
  if (part.n == 0) return;
  const ExpertsWork work = {args, part};
  multiply_strips<AsInt8<F>, kRows, kStrips>(work, at.index, int64_t{at.y} * kStrips);
}

#define EDGE_EXPORT_GEMM_EXPERTS(F)                             \
  EDGE_EXPORT_AS("gemm_experts_16_" #F, gemm_experts, F, 16, 2) \
  EDGE_EXPORT_AS("gemm_experts_64_" #F, gemm_experts, F, 64, 4)
EDGE_INTEGER_FORMATS(EDGE_EXPORT_GEMM_EXPERTS)
