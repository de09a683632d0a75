// Sums over the 16 virtual lanes of a row (docs/KERNELS.md): thread l < 16 of a block is lane l,
// and takes the columns l, l + 16, .. in order; then one tree. All threads of the block call these.
#pragma once

#include "backends/cuda/lane.h"
#include "backends/cuda/launch.h"

namespace edge::cuda {

constexpr int kLanes = 16;

__device__ inline float tree_sum(const float* lanes) {
  float sums[kLanes];
  EDGE_UNROLL
  for (int l = 0; l < kLanes; ++l) sums[l] = lanes[l];
  EDGE_UNROLL
  for (int half = kLanes / 2; half >= 1; half /= 2) {
    EDGE_UNROLL
    for (int l = 0; l < half; ++l) sums[l] = sums[l] + sums[l + half];
  }
  return sums[0];
}

// step(sum, i) adds column i to a lane's sum. `lanes`: shared, kLanes floats.
template <class Step>
__device__ float lane_sum(int64_t n, float* lanes, const Step& step) {
  if (threadIdx.x < kLanes) {
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += kLanes) sum = step(sum, i);
    lanes[threadIdx.x] = sum;
  }
  __syncthreads();
  const float total = tree_sum(lanes);
  __syncthreads();
  return total;
}

struct NormFactors {
  float mean = 0;
  float inverse = 0;
};

// get(i): column i of the row.
template <class Get>
__device__ NormFactors norm_factors(const NormArgs& norm, int64_t n, float* lanes, const Get& get) {
  NormFactors factors;
  if (norm.weight == nullptr) return factors;
  const auto length = static_cast<float>(n);
  if (norm.kind == NormKind::kLayer) {
    factors.mean = lane_sum(n, lanes, [&](float sum, int64_t i) { return sum + get(i); }) / length;
  }
  const float squares = lane_sum(n, lanes, [&](float sum, int64_t i) {
    const float v = norm.kind == NormKind::kLayer ? get(i) - factors.mean : get(i);
    return fma_exact(v, v, sum);
  });
  factors.inverse = 1.0f / sqrtf(squares / length + norm.eps);
  return factors;
}

__device__ inline float normed(const NormArgs& norm, const NormFactors& factors, float v,
                               int64_t i) {
  if (norm.weight == nullptr) return v;
  if (norm.kind == NormKind::kRms) return v * factors.inverse * norm.weight[i];
  return fma_exact((v - factors.mean) * factors.inverse, norm.weight[i], norm.bias[i]);
}

}  // namespace edge::cuda
