// E formats x int8 for many rows, with matrix multiplications: sums are two rows of weights by two
// of activations throughout, {w0 a0, w0 a1, w1 a0, w1 a1}.
#include "kernels/arm_neon/gemm_a8.h"

namespace edge {
namespace arm_neon {
namespace {

struct I8mm {
  static constexpr int kTileUnits = 8;
  static constexpr int kUnitBytes = 64;  // [columns / 8][2 rows][8]
  static constexpr int kActRows = 2;
  static constexpr int kActUnits = 2;

  template <class Unit>
  static EDGE_MEMBER_INLINE void pack(const int8x16_t* quads, Unit* units) {
    for (int j = 0; j < 4; ++j) {
      const int32x4_t even = vreinterpretq_s32_s8(quads[2 * j]);
      const int32x4_t odd = vreinterpretq_s32_s8(quads[2 * j + 1]);
      vst1q_s8(units[0].w + 16 * j, vreinterpretq_s8_s32(vzip1q_s32(even, odd)));
      vst1q_s8(units[1].w + 16 * j, vreinterpretq_s8_s32(vzip2q_s32(even, odd)));
    }
  }
  template <class Unit>
  static EDGE_MEMBER_INLINE void pack_scales(int32x4_t scales, int g, Unit* units) {
    vst1q_s32(units[0].s[g], vzip1q_s32(scales, scales));
    vst1q_s32(units[1].s[g], vzip2q_s32(scales, scales));
  }

  template <int A>
  struct Acts {
    int8x16_t q[A][4];  // 8 columns of two rows
    float32x4_t d[A];
    EDGE_MEMBER_INLINE explicit Acts(const BlockRows& rows) {
      EDGE_UNROLL
      for (int a = 0; a < A; ++a) {
        const int8_t* first = rows.q + 2 * kTileK * a;
        const int8_t* second = first + kTileK * rows.next;
        EDGE_UNROLL
        for (int h = 0; h < 2; ++h) {
          const int64x2_t x = vreinterpretq_s64_s8(vld1q_s8(first + 16 * h));
          const int64x2_t y = vreinterpretq_s64_s8(vld1q_s8(second + 16 * h));
          q[a][2 * h] = vreinterpretq_s8_s64(vzip1q_s64(x, y));
          q[a][2 * h + 1] = vreinterpretq_s8_s64(vzip2q_s64(x, y));
        }
        const float32x4_t d0 = vld1q_dup_f32(rows.d + 2 * a);
        d[a] = vtrn1q_f32(d0, vld1q_dup_f32(rows.d + 2 * a + rows.next));
      }
    }
  };

  template <class Part, int A>
  static EDGE_MEMBER_INLINE void dots(const int8_t* w, const Acts<A>& acts, int group,
                                      int32x4_t* sum) {
    constexpr int kSteps = 4 / Part::kGroups;
    EDGE_UNROLL
    for (int a = 0; a < A; ++a) sum[a] = zero_sum();
    EDGE_UNROLL
    for (int j = kSteps * group; j < kSteps * (group + 1); ++j) {
      const int8x16_t weights = vld1q_s8(w + 16 * j);
      EDGE_UNROLL
      for (int a = 0; a < A; ++a) sum[a] = vmmlaq_s32(sum[a], weights, acts.q[a][j]);
    }
  }

  template <int A>
  static EDGE_MEMBER_INLINE void minus_sums(const BlockRows& rows, int32x4_t* out) {
    EDGE_UNROLL
    for (int a = 0; a < A; ++a) {
      const int32x4_t first = vdupq_n_s32(minus_sum_of(rows.bias + 4 * a));
      const int32x4_t second = vdupq_n_s32(minus_sum_of(rows.bias + 4 * a + 2 * rows.next));
      out[a] = vtrn1q_s32(first, second);
    }
  }
  template <int A>
  static EDGE_MEMBER_INLINE void load_sums(const float* sums, int half, int next, float32x4_t* f) {
    EDGE_UNROLL
    for (int a = 0; a < A; ++a) {
      const float* first = sums + 2 * kTileRows * a + 8 * half;
      const float* second = first + kTileRows * next;
      EDGE_UNROLL
      for (int part = 0; part < 2; ++part) {
        const float32x4_t x = vld1q_f32(first + 4 * part);
        const float32x4_t y = vld1q_f32(second + 4 * part);
        f[2 * part * A + a] = vzip1q_f32(x, y);
        f[(2 * part + 1) * A + a] = vzip2q_f32(x, y);
      }
    }
  }
  template <int A>
  static EDGE_MEMBER_INLINE void store_sums(const float32x4_t* f, int half, int next, float* sums) {
    EDGE_UNROLL
    for (int a = 0; a < A; ++a) {
      float* first = sums + 2 * kTileRows * a + 8 * half;
      float* second = first + kTileRows * next;
      EDGE_UNROLL
      for (int part = 0; part < 2; ++part) {
        const float32x4_t x = f[2 * part * A + a];
        const float32x4_t y = f[(2 * part + 1) * A + a];
        vst1q_f32(second + 4 * part, vuzp2q_f32(x, y));
        vst1q_f32(first + 4 * part, vuzp1q_f32(x, y));
      }
    }
  }
};

}  // namespace
}  // namespace arm_neon

void gemm_e2_16_a8_neon_i8mm(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::I8mm, E2_16<true>>>(args);
}
void gemm_e3_32_a8_neon_i8mm(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::I8mm, E3_32<true>>>(args);
}
void gemm_e4_16_a8_neon_i8mm(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::I8mm, E4_16<true>>>(args);
}
void gemm_e4_32_a8_neon_i8mm(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::I8mm, E4_32<true>>>(args);
}
void gemm_e6_16_a8_neon_i8mm(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::I8mm, E6_16<true>>>(args);
}
void gemm_e8_32_a8_neon_i8mm(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::I8mm, E8_32<true>>>(args);
}
void gemm_k4_32_a8_neon_i8mm(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::I8mm, K4_32<true>>>(args);
}
void gemm_l4_32_a8_neon_i8mm(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::I8mm, L4_32<true>>>(args);
}
void gemm_l8_32_a8_neon_i8mm(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::I8mm, L8_32<true>>>(args);
}

}  // namespace edge
