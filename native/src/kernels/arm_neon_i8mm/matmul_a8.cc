// E formats x int8 with the matrix multiplication of armv8.6: two weight rows meet two activation
// rows over eight columns in one instruction. A single row gains nothing from it: one row alone is
// left to neon_dot, the last of an odd number takes dot products on the same registers.
#include "kernels/arm_neon/matmul_a8.h"

namespace edge {
namespace {

struct NeonI8mm {
  static constexpr bool kPairs = true;
  // [j]: columns 8j .. 8j + 7 of rows 0, 1 and of rows 2, 3 of a part.
  int8x16_t w01[4], w23[4];

  EDGE_MEMBER_INLINE explicit NeonI8mm(const int8x16_t* w) {
    for (int j = 0; j < 4; ++j) {
      const int32x4_t even = vreinterpretq_s32_s8(w[2 * j]);
      const int32x4_t odd = vreinterpretq_s32_s8(w[2 * j + 1]);
      w01[j] = vreinterpretq_s8_s32(vzip1q_s32(even, odd));
      w23[j] = vreinterpretq_s8_s32(vzip2q_s32(even, odd));
    }
  }

  template <class Fmt>
  EDGE_MEMBER_INLINE void dot_pair(const Fmt& part, const ActBlock& a, const ActBlock& b,
                                   int32x4_t* sum_a, int32x4_t* sum_b) const {
    constexpr int kSteps = 4 / Fmt::kGroups;
    for (int g = 0; g < Fmt::kGroups; ++g) {
      int32x4_t rows01 = vdupq_n_s32(0);  // {row 0 a, row 0 b, row 1 a, row 1 b}
      int32x4_t rows23 = vdupq_n_s32(0);
      for (int j = kSteps * g; j < kSteps * (g + 1); ++j) {
        const int8x16_t both = vcombine_s8(vld1_s8(a.q + 8 * j), vld1_s8(b.q + 8 * j));
        rows01 = vmmlaq_s32(rows01, w01[j], both);
        rows23 = vmmlaq_s32(rows23, w23[j], both);
      }
      sum_a[g] = vaddq_s32(part.start(a.bias, g), vuzp1q_s32(rows01, rows23));
      sum_b[g] = vaddq_s32(part.start(b.bias, g), vuzp2q_s32(rows01, rows23));
    }
  }

  template <class Fmt>
  EDGE_MEMBER_INLINE void dot(const Fmt& part, const ActBlock& a, int32x4_t* sum) const {
    constexpr int kSteps = 4 / Fmt::kGroups;
    for (int g = 0; g < Fmt::kGroups; ++g) {
      int32x4_t rows01 = vdupq_n_s32(0);  // two halves of the columns each
      int32x4_t rows23 = vdupq_n_s32(0);
      for (int j = kSteps * g; j < kSteps * (g + 1); ++j) {
        const int8x8_t half = vld1_s8(a.q + 8 * j);
        const int8x16_t twice = vcombine_s8(half, half);
        rows01 = vdotq_s32(rows01, w01[j], twice);
        rows23 = vdotq_s32(rows23, w23[j], twice);
      }
      sum[g] = vaddq_s32(part.start(a.bias, g), vpaddq_s32(rows01, rows23));
    }
  }
};

template <template <bool> class Fmt>
EDGE_INLINE void matmul_pairs(const MatmulArgs& args, MatmulFn one_row) {
  if (args.n_rows == 1) return one_row(args);
  matmul<NeonI8mm, Fmt>(args);
}

}  // namespace

void matmul_e2_16_a8_neon_i8mm(const MatmulArgs& args) {
  matmul_pairs<E2_16>(args, matmul_e2_16_a8_neon_dot);
}
void matmul_e3_32_a8_neon_i8mm(const MatmulArgs& args) {
  matmul_pairs<E3_32>(args, matmul_e3_32_a8_neon_dot);
}
void matmul_e4_16_a8_neon_i8mm(const MatmulArgs& args) {
  matmul_pairs<E4_16>(args, matmul_e4_16_a8_neon_dot);
}
void matmul_e4_32_a8_neon_i8mm(const MatmulArgs& args) {
  matmul_pairs<E4_32>(args, matmul_e4_32_a8_neon_dot);
}
void matmul_e6_16_a8_neon_i8mm(const MatmulArgs& args) {
  matmul_pairs<E6_16>(args, matmul_e6_16_a8_neon_dot);
}
void matmul_e8_32_a8_neon_i8mm(const MatmulArgs& args) {
  matmul_pairs<E8_32>(args, matmul_e8_32_a8_neon_dot);
}
void matmul_k4_32_a8_neon_i8mm(const MatmulArgs& args) {
  matmul_pairs<K4_32>(args, matmul_k4_32_a8_neon_dot);
}
void matmul_l4_32_a8_neon_i8mm(const MatmulArgs& args) {
  matmul_pairs<L4_32>(args, matmul_l4_32_a8_neon_dot);
}
void matmul_l8_32_a8_neon_i8mm(const MatmulArgs& args) {
  matmul_pairs<L8_32>(args, matmul_l8_32_a8_neon_dot);
}

}  // namespace edge
