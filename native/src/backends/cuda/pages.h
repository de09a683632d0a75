// Where kernels find keys and values: the page of a position, and the parts of a kv head in it
// (kernels/kv_format.h).
#pragma once

#include "backends/cuda/lane.h"
#include "backends/cuda/launch.h"
#include "base/half.h"

namespace edge::cuda {

constexpr int kMostHeadDim = 1024;
constexpr int kPlaneBytes = 4 * kPageTokens;
constexpr int kMostScales = kMostHeadDim / 16;

// The kv head `number` of those of a layer that follow each other.
__device__ inline KvHead head_of(const KvHead (&pair)[2], int number) {
  KvHead head = pair[number % 2];
  const size_t shift = static_cast<size_t>(number / 2 * 2) * head.n_bytes;
  head.begin += shift;
  head.keys += shift;
  head.values += shift;
  head.key_scales += shift;
  head.value_scales += shift;
  return head;
}

// The largest over a warp.
__device__ inline int warp_max(int x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const int other = __shfl_xor_sync(kAllLanes, x, lanes);
    x = other > x ? other : x;
  }
  return x;
}
__device__ inline int warp_sum(int x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(kAllLanes, x, lanes);
  return x;
}
__device__ inline int magnitude_bits(float x) {
  return static_cast<int>(scalar::lane_bits(x) & 0x7fffffffu);
}

}  // namespace edge::cuda
