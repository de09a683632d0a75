// Products as matrices of int8, with the sums of gpu/strip_sums.inl.h: a tile's integer sums are
// exact in any order, so a tensor core may make them, and each thread adds what a tile gives to its
// outputs, tile by tile, with the CPU's one fma. So y has the same bits.
//
// A row is unpacked to int8, less its zero point where a byte can hold that.
#pragma once

#include "backends/cuda/gemm_group.h"

namespace EDGE_DEVICE {

// Sums that start here, 1.5 * 2^23, are as bits of a float that much more than as integers: what is
// below 2^22 becomes a float by one subtraction.
constexpr int kSumStart = 0x4b400000;
EDGE_FN float float_of_sum(int sum) { return float_of(sum) - 12582912.0f; }

// What a row of a tile has beside its int8 weights.
struct Int8Factors {
  float a, b;
};

// Bytes less `zero`, both at most 127.
EDGE_FN uint32_t less_zero(uint32_t bytes, int zero) {
  return ((bytes | 0x80808080u) - 0x01010101u * static_cast<uint32_t>(zero)) ^ 0x80808080u;
}

// How a format's integer sums become x, the bits of its Row::sum(). take() makes what is
// multiplied; n_rest: minus the sum of the activations.
struct ByHalves {
  static constexpr bool kHasHalves = true, kHasRest = false;
  static __device__ Int8Factors take(RowBy16& row) {
    EDGE_UNROLL
    for (int i = 0; i < 8; ++i) row.quads[i] = less_zero(row.quads[i], row.zero[i / 4]);
    return {static_cast<float>(row.scale[0]), static_cast<float>(row.scale[1])};
  }
  // Both products are below 2^24.
  static __device__ float x(int low, int high, Int8Factors scale, float) {
    return fma_exact(scale.b, float_of_sum(high), scale.a * float_of_sum(low));
  }
};
struct Whole {
  static constexpr bool kHasHalves = false, kHasRest = false;
  static __device__ Int8Factors take(const RowBy32& row) { return {row.scale, 0}; }
  static __device__ float x(int sum, int, Int8Factors scale, float) {
    return scale.a * float_of_sum(sum);
  }
};
struct WholeLessZero : Whole {
  static __device__ Int8Factors take(RowBy32& row) {
    EDGE_UNROLL
    for (int i = 0; i < 8; ++i) row.quads[i] = less_zero(row.quads[i], row.zero);
    return {row.scale, 0};
  }
};
// Of a zero point up to 255.
struct ByZero {
  static constexpr bool kHasHalves = false, kHasRest = true;
  static __device__ Int8Factors take(const RowBy32& row) {
    return {row.scale, static_cast<float>(row.zero)};
  }
  static __device__ float x(int sum, int, Int8Factors by, float n_rest) {
    return by.a * fma_exact(by.b, n_rest, float_of_sum(sum));
  }
};
struct ByMinimum {
  static constexpr bool kHasHalves = false, kHasRest = true;
  static __device__ Int8Factors take(const RowK4& row) { return {row.scale, row.minimum}; }
  static __device__ float x(int sum, int, Int8Factors by, float n_rest) {
    return fma_exact(by.a, float_of_sum(sum), by.b * n_rest);
  }
};

template <class F>
struct Product;
template <>
struct Product<E2_16> : ByHalves {};
template <>
struct Product<E3_32> : WholeLessZero {};
template <>
struct Product<E4_16> : ByHalves {};
template <>
struct Product<E4_32> : WholeLessZero {};
template <>
struct Product<E6_16> : ByHalves {};
template <>
struct Product<E8_32> : Whole {};
template <>
struct Product<K4_32> : ByMinimum {};
template <>
struct Product<L4_32> : ByZero {};
template <>
struct Product<L8_32> : Whole {};

EDGE_FN float n_rest_of(int64_t bias) {  // -64 times the sums of both halves
  int halves[2];
  memcpy(halves, &bias, sizeof halves);
  return static_cast<float>((halves[0] >> 6) + (halves[1] >> 6));
}

template <class F>
struct AsInt8 {
  using Format = F;
  using Factors = Int8Factors;
  using P = Product<F>;
  static constexpr int kScales = kGemmTiles;  // of a row of activations in a stage
  static constexpr bool kHasRest = P::kHasRest;

  static __device__ Factors unpack(const StagedTiles& tiles, int tile, int row,
                                   uint32_t (&quads)[8]) {
    typename F::Row unpacked = tiles.row_of<F>(tile, row);
    const Factors factors = P::take(unpacked);
    memcpy(quads, unpacked.quads, sizeof quads);
    return factors;
  }

  template <class Group>
  static __device__ void multiply(Group& group, int n_tiles, const typename Group::Copied& from,
                                  const typename Group::Taken& unpacked) {
    for (int tile = 0; tile < n_tiles; ++tile) multiply_tile(group, tile, from, unpacked);
  }

  template <class Group>
  static __device__ void multiply_tile(Group& group, int tile, const typename Group::Copied& from,
                                       const typename Group::Taken& unpacked) {
    uint32_t a[4];
    group.load_weights(a, tile, unpacked);
    const Factors* factors = unpacked.factors[group.strip()][tile];
    const Factors by[2] = {factors[group.row_of_sum(0)], factors[group.row_of_sum(2)]};
    EDGE_UNROLL
    for (int part = 0; part < Group::kParts; ++part) {
      uint32_t b[2];
      group.load_acts(b, tile, part, from);
      int low[4], high[4] = {};
      if constexpr (P::kHasHalves) {
        multiply_add(low, {a[0], a[1]}, b[0], kSumStart);
        multiply_add(high, {a[2], a[3]}, b[1], kSumStart);
      } else {
        multiply_add(low, a, b, kSumStart);
      }
      EDGE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int col = group.col_of_sum(part, i);
        const float n_rest = kHasRest ? n_rest_of(from.bias[tile][kHasRest ? col : 0]) : 0;
        const float x = P::x(low[i], high[i], by[i / 2], n_rest);
        group.f[part][i] = fma_exact(x, from.scale[tile][col], group.f[part][i]);
      }
    }
  }
};

}  // namespace EDGE_DEVICE
