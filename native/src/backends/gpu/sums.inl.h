// Sums over the 16 virtual lanes of a row (docs/KERNELS.md): thread l < 16 of a group is lane l,
// and takes the columns l, l + 16, .. in order; then one tree. All threads of the group call these.
// What is summed is an object with operator(), the only kind of function that every dialect can
// pass.
#pragma once

#include "backends/gpu/lane.inl.h"

namespace EDGE_DEVICE {

EDGE_CONSTANT int kLanes = 16;

EDGE_FN float tree_sum(EDGE_GROUP const float* lanes) {
  float sums[kLanes];
  EDGE_UNROLL
  for (int l = 0; l < kLanes; ++l) sums[l] = lanes[l];
  EDGE_UNROLL
  for (int width = kLanes / 2; width >= 1; width /= 2) {
    EDGE_UNROLL
    for (int l = 0; l < width; ++l) sums[l] = sums[l] + sums[l + width];
  }
  return sums[0];
}

// step(sum, i) adds column i to a lane's sum. `lanes`: kLanes floats.
template <class Step>
EDGE_FN float lane_sum(At at, int64_t n, EDGE_GROUP float* lanes, Step step) {
  if (at.index < kLanes) {
    float sum = 0;
    for (int64_t i = at.index; i < n; i += kLanes) sum = step(sum, i);
    lanes[at.index] = sum;
  }
  EDGE_SYNC();
  const float total = tree_sum(lanes);
  EDGE_SYNC();
  return total;
}

struct NormFactors {
  float mean;
  float inverse;
};

template <class Get>
struct AddColumn {
  Get get;
  EDGE_MEMBER_FN float operator()(float sum, int64_t i) const { return sum + get(i); }
};
template <class Get>
struct AddSquare {
  Get get;
  float mean;
  bool is_centred;
  EDGE_MEMBER_FN float operator()(float sum, int64_t i) const {
    const float v = is_centred ? get(i) - mean : get(i);
    return fma_exact(v, v, sum);
  }
};

// get(i): column i of the row.
template <class Get>
EDGE_FN NormFactors norm_factors(At at, EDGE_ARGS NormArgs& norm, int64_t n,
                                 EDGE_GROUP float* lanes, Get get) {
  NormFactors factors = {0, 0};
  if (norm.weight == nullptr) return factors;
  const float length = static_cast<float>(n);
  const bool is_layer = norm.kind == NormKind::kLayer;
  if (is_layer) factors.mean = lane_sum(at, n, lanes, AddColumn<Get>{get}) / length;
  const float squares = lane_sum(at, n, lanes, AddSquare<Get>{get, factors.mean, is_layer});
  factors.inverse = 1.0f / square_root(squares / length + norm.eps);
  return factors;
}

EDGE_FN float normed(EDGE_ARGS NormArgs& norm, NormFactors factors, float v, int64_t i) {
  if (norm.weight == nullptr) return v;
  if (norm.kind == NormKind::kRms) return v * factors.inverse * norm.weight[i];
  return fma_exact((v - factors.mean) * factors.inverse, norm.weight[i], norm.bias[i]);
}

}  // namespace EDGE_DEVICE
