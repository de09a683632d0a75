// Products with many rows of activations as matrices of 8-bit floats, E4M3 (Micikevicius et al.
// 2022, arXiv:2209.05433): backend "cuda-fp8". They have not the CPU's bits, and are for chips that
// multiply such floats (kHasFp8); for others these kernels are empty.
//
// Weights, whatever their format, and activations become E4M3, a row's 128 columns with one scale,
// and a tensor core sums their products over these columns; each thread adds what a stage gives to
// its outputs as floats, so that no long sum is left to the tensor core, which keeps fewer bits
// (DeepSeek-V3, arXiv:2412.19437, section 3.3.2).
#include "backends/cuda/gemm_group.h"
#include "backends/gpu/fp8_args.h"

namespace EDGE_DEVICE {

static_assert(kGemmTiles * kTileK == kFp8Cols);

// What no weight of the row is beyond, d_row left out.
EDGE_FN float bound_of(const RowBy16&) { return 127.0f * 128.0f; }
EDGE_FN float bound_of(const RowByInteger32&) { return 127.0f * 128.0f; }
EDGE_FN float bound_of(const RowBy32& row) { return fabsf(row.scale) * 255.0f; }
EDGE_FN float bound_of(const RowK4& row) { return fabsf(row.scale) * 15.0f + fabsf(row.minimum); }

// The power of two by which what is within `bound` is within 256. E4M3 reaches 448; its least
// normal number is 2^-6, so all that is not below bound / 2^14 keeps four bits. NaN where the bound
// is not finite, so that outputs are not, either.
EDGE_FN float power_for(float bound) {
  const int exponent = magnitude_bits(bound) >> 23;
  if (exponent == 255) return float_of(0x7fc00000);
  return float_of((larger(exponent, 8) - 7) << 23);
}
EDGE_FN float inverse_of_power(float power) {
  return float_of((254 << 23) - magnitude_bits(power));
}

EDGE_FN uint32_t fp8_quad(float a, float b, float c, float d) {
  return fp8_pair(a, b) | fp8_pair(c, d) << 16;
}
EDGE_FN float float_of_fp8(uint32_t code) {
  const float magnitude = float_of(static_cast<int>(code & 127) << 20) * 0x1p120f;
  return (code & 128) == 0 ? magnitude : -magnitude;
}

template <class F>
struct AsFp8 {
  using Format = F;
  using Factors = float;
  static constexpr int kScales = 1;
  static constexpr bool kHasRest = false;

  static __device__ float unpack(const StagedTiles& tiles, int tile, int row,
                                 uint32_t (&quads)[8]) {
    float bound = 0;
    EDGE_UNROLL
    for (int i = 0; i < kGemmTiles; ++i) {
      if (i < tiles.n) bound = fmaxf(bound, bound_of(tiles.row_of<F>(i, row)));
    }
    const float power = power_for(bound), inverse = inverse_of_power(power);
    const typename F::Row own = tiles.row_of<F>(tile, row);
    EDGE_UNROLL
    for (int i = 0; i < 8; ++i) {
      quads[i] = fp8_quad(own.value(4 * i) * inverse, own.value(4 * i + 1) * inverse,
                          own.value(4 * i + 2) * inverse, own.value(4 * i + 3) * inverse);
    }
    return power;
  }

  template <class Group>
  static __device__ void multiply(Group& group, int n_tiles, const typename Group::Copied& from,
                                  const typename Group::Taken& unpacked) {
    float sums[Group::kParts][4] = {};
    for (int tile = 0; tile < n_tiles; ++tile) {
      uint32_t a[4];
      group.load_weights(a, tile, unpacked);
      EDGE_UNROLL
      for (int part = 0; part < Group::kParts; ++part) {
        uint32_t b[2];
        group.load_acts(b, tile, part, from);
        multiply_add_fp8(sums[part], a, b);
      }
    }
    const float* powers = unpacked.factors[group.strip()][0];
    const float by[2] = {powers[group.row_of_sum(0)], powers[group.row_of_sum(2)]};
    EDGE_UNROLL
    for (int part = 0; part < Group::kParts; ++part) {
      EDGE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float scale = from.scale[0][group.col_of_sum(part, i)] * by[i / 2];
        group.f[part][i] = fma_exact(sums[part][i], scale, group.f[part][i]);
      }
    }
  }
};

// Column `lane` of some blocks of a row, less the blocks' common scale.
struct Fp8Column {
  float scale;  // 254 of it reach to the largest of the blocks
  float v[kGemmTiles];
};
EDGE_FN Fp8Column fp8_column(const Fp8ActsArgs& args, int64_t row, int64_t block0, int n,
                             int lane) {
  Fp8Column column = {};
  for (int i = 0; i < n; ++i) {
    const float d = args.from.d[block_index(args.from, args.halves * row, block0 + i)];
    column.scale = fmaxf(column.scale, 0.5f * d);
  }
  if (column.scale == 0) return column;
  for (int i = 0; i < n; ++i) {
    for (int half = 0; half < args.halves; ++half) {
      const int64_t block = block_index(args.from, args.halves * row + half, block0 + i);
      const float share = args.from.d[block] / column.scale;
      column.v[i] += static_cast<float>(args.from.q[kBlockCols * block + lane]) * share;
    }
  }
  return column;
}

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

// A warp kFp8Cols columns of a row.
static __global__ void __launch_bounds__(kRowThreads) acts_to_fp8(const Fp8ActsArgs args) {
  if constexpr (kHasFp8) {
    const At at = EDGE_AT;
    const int lane = at.index % kWarp;
    const int64_t block0 = (int64_t{at.x} * (kRowThreads / kWarp) + at.index / kWarp) * kGemmTiles;
    const int64_t left = args.from.n_blocks - block0;
    const int n = left < kGemmTiles ? static_cast<int>(left) : kGemmTiles;
    const Fp8Column column = fp8_column(args, at.y, block0, n, lane);
    for (int i = 0; i < n; ++i) {
      float rest = column.v[i], scale = column.scale;
      for (int half = 0; half < args.halves; ++half) {
        const int64_t block = block_index(args.to, int64_t{args.halves} * at.y + half, block0 + i);
        const uint32_t code = fp8_pair(rest, 0) & 255;
        args.to.q[kBlockCols * block + lane] = static_cast<int8_t>(code);
        if (lane == 0) args.to.d[block] = scale;
        rest = 16 * (rest - float_of_fp8(code));
        scale = 0.0625f * scale;
      }
    }
  }
}

template <class F, int kRows, int kStrips>
static __global__ void EDGE_GEMM_BOUNDS(kStrips) gemm_fp8(const MatmulArgs args) {
  if constexpr (kHasFp8) {
    const At at = EDGE_AT;
    const MatrixWork work = {args, int64_t{at.x} * kRows};
    multiply_strips<AsFp8<F>, kRows, kStrips>(work, at.index, int64_t{at.y} * kStrips);
  }
}

EDGE_EXPORT(acts_to_fp8)
#define EDGE_EXPORT_GEMM_FP8(F)                         \
  EDGE_EXPORT_AS("gemm_fp8_32_" #F, gemm_fp8, F, 32, 2) \
  EDGE_EXPORT_AS("gemm_fp8_128_" #F, gemm_fp8, F, 128, 2)
EDGE_INTEGER_FORMATS(EDGE_EXPORT_GEMM_FP8)
