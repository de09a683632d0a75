// Scores of a few queries against the key of one position, which is read once for all of them: each
// has the CPU's bits (kernels/attention.h). Included after a dialect.
#pragma once

#include "backends/gpu/pages.inl.h"

namespace EDGE_DEVICE {

EDGE_CONSTANT int kSegmentWarps = kSegmentTokens / kWarp;

// Queries as keys meet them, kDim channels each (kernels/attention.h, QueryInt8).
struct Queries {
  EDGE_GROUP float* f;
  EDGE_GROUP int8_t* q;  // aligned to 4
  EDGE_GROUP float* scale;
  EDGE_GROUP int* sum;
};

// A warp makes a scale group of a query.
template <int kDim>
EDGE_FN void quantize_queries(At at, Queries queries, int n, int head_dim, int channels,
                              EDGE_GLOBAL int32_t* flag) {
  const int lane = at.index % kWarp;
  const int n_groups = (head_dim + channels - 1) / channels;
  for (int i = at.index / kWarp; i < n * n_groups; i += kSegmentWarps) {
    const int query = i / n_groups, group = i % n_groups;
    EDGE_GROUP const float* f = queries.f + query * kDim;
    EDGE_GROUP int8_t* to = queries.q + query * kDim;
    const int begin = group * channels;
    const int end = smaller(begin + channels, head_dim);
    int bits = 0;
    for (int c = begin + lane; c < end; c += kWarp) bits = larger(magnitude_bits(f[c]), bits);
    bits = warp_max(bits);
    if (bits > 0x7f7fffff && lane == 0) *flag = 1;
    const float amax = float_of(bits);
    const bool is_zero = amax < 0x1p-100f;
    const float inverse = is_zero ? 0.0f : 127.0f / amax;
    int sum = 0;
    for (int c = begin + lane; c < end; c += kWarp) {
      const int level = scalar::lane_to_int(f[c] * inverse);
      const int q = level > 127 ? 127 : level < -127 ? -127 : level;
      to[c] = static_cast<int8_t>(q);
      sum += q;
    }
    sum = warp_sum(sum);
    if (lane != 0) continue;
    queries.scale[query * (kDim / 16) + group] = is_zero ? 0.0f : amax / 127.0f;
    queries.sum[query * (kDim / 16) + group] = sum;
  }
  if (at.index < n) {
    for (int c = head_dim; c % 4 != 0; ++c) queries.q[at.index * kDim + c] = 0;
  }
}

template <int kQueries, int kDim>
EDGE_FN void score_f16(Queries queries, int n, EDGE_GLOBAL const uint8_t* page,
                       EDGE_LOCAL const KvPart& head, int place, EDGE_LOCAL float* scores) {
  for (int j = 0; j < kQueries; ++j) scores[j] = 0;
  for (int c = 0; c < head.head_dim; ++c) {
    const float key = half_in(page, head.keys, c * kPageTokens + place);
    EDGE_UNROLL
    for (int j = 0; j < kQueries; ++j) {
      if (j < n) scores[j] = fma_exact(queries.f[j * kDim + c], key, scores[j]);
    }
  }
}

EDGE_FN uint32_t key_word(EDGE_GLOBAL const uint8_t* keys, int plane) {
  return *reinterpret_cast<EDGE_GLOBAL const uint32_t*>(keys + plane * kPlaneBytes);
}
// Key bytes of a quad, from 0: what is taken off them is zero_of().
EDGE_FN uint32_t key_quad(EDGE_GLOBAL const uint8_t* keys, int bits, int quad) {
  if (bits == 8) return key_word(keys, quad) ^ 0x80808080u;
  const int plane = quad / 4 * 3;
  if (quad % 4 < 3) return key_word(keys, plane + quad % 4) & 0x3f3f3f3fu;
  return (key_word(keys, plane) >> 6 & 0x03030303u) |
         (key_word(keys, plane + 1) >> 4 & 0x0c0c0c0cu) |
         (key_word(keys, plane + 2) >> 2 & 0x30303030u);
}

template <int kQueries, int kDim>
EDGE_FN void score_integer(Queries queries, int n, EDGE_GLOBAL const uint8_t* page,
                           EDGE_LOCAL const KvPart& head, int place, EDGE_LOCAL float* scores) {
  EDGE_GLOBAL const uint8_t* keys = page + head.keys + place * 4;
  EDGE_GROUP const int* quads = reinterpret_cast<EDGE_GROUP const int*>(queries.q);
  const int zero_point = head.key_bits == 8 ? 0 : 32;
  for (int j = 0; j < kQueries; ++j) scores[j] = 0;
  for (int begin = 0, group = 0; begin < head.head_dim; begin += head.key_channels, ++group) {
    const int end = smaller(begin + head.key_channels, head.head_dim);
    int dots[kQueries];
    EDGE_UNROLL
    for (int j = 0; j < kQueries; ++j) {
      dots[j] = j < n ? -zero_point * queries.sum[j * (kDim / 16) + group] : 0;
    }
    for (int quad = begin / 4; 4 * quad < end; ++quad) {
      const int key = static_cast<int>(key_quad(keys, head.key_bits, quad));
      EDGE_UNROLL
      for (int j = 0; j < kQueries; ++j) {
        if (j < n) dots[j] = dot4(key, quads[j * (kDim / 4) + quad], dots[j]);
      }
    }
    const float key_scale = half_in(page, head.key_scales, group * kPageTokens + place);
    EDGE_UNROLL
    for (int j = 0; j < kQueries; ++j) {
      if (j >= n) continue;
      const float step = queries.scale[j * (kDim / 16) + group] * key_scale;
      scores[j] = fma_exact(static_cast<float>(dots[j]), step, scores[j]);
    }
  }
}

}  // namespace EDGE_DEVICE
