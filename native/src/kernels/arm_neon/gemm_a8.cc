// E formats x int8 for many rows, NEON of armv8.0: products as in matmul_a8.cc, of two rows of
// activations, each quad of which is repeated in a register.
#include "kernels/arm_neon/gemm_a8.h"

namespace edge {
namespace arm_neon {
namespace {

struct Multiply : PartUnits {
  static constexpr int kActUnits = 2;

  template <int A>
  struct Acts {
    int8x16_t q[A][8];
    float32x4_t d[A];
    EDGE_MEMBER_INLINE explicit Acts(const BlockRows& rows) {
      EDGE_UNROLL
      for (int a = 0; a < A; ++a) {
        EDGE_UNROLL
        for (int h = 0; h < 2; ++h) {
          const int32x4_t quads = vreinterpretq_s32_s8(vld1q_s8(rows.q + kTileK * a + 16 * h));
          q[a][4 * h] = vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 0));
          q[a][4 * h + 1] = vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 1));
          q[a][4 * h + 2] = vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 2));
          q[a][4 * h + 3] = vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 3));
        }
        d[a] = vld1q_dup_f32(rows.d + a);
      }
    }
  };

  template <class Part, int A>
  static EDGE_MEMBER_INLINE void dots(const int8_t* w, const Acts<A>& acts, int group,
                                      int32x4_t* sum) {
    constexpr int kQuads = 8 / Part::kGroups;
    constexpr int kAtOnce = Part::kMagnitude * 127 * 4 <= INT16_MAX ? 4 : 2;
    static_assert(Part::kMagnitude * 127 * kAtOnce <= INT16_MAX);
    int32x4_t low[A], high[A];
    EDGE_UNROLL
    for (int t = kQuads * group; t < kQuads * (group + 1); t += kAtOnce) {
      int16x8_t low16[A], high16[A];
      products<A, kAtOnce>(w, acts, t, low16, high16);
      const bool is_first = t == kQuads * group;
      EDGE_UNROLL
      for (int a = 0; a < A; ++a) {
        low[a] = is_first ? vpaddlq_s16(low16[a]) : vpadalq_s16(low[a], low16[a]);
        high[a] = is_first ? vpaddlq_s16(high16[a]) : vpadalq_s16(high[a], high16[a]);
      }
    }
    EDGE_UNROLL
    for (int a = 0; a < A; ++a) sum[a] = vpaddq_s32(low[a], high[a]);
  }

 private:
  // Quads t .. t + n - 1: rows 0, 1 of a part (low) and rows 2, 3 (high), a lane per column of a
  // quad.
  template <int A, int n>
  static EDGE_MEMBER_INLINE void products(const int8_t* w, const Acts<A>& acts, int t,
                                          int16x8_t* low, int16x8_t* high) {
    EDGE_UNROLL
    for (int i = 0; i < n; ++i) {
      const int8x16_t x = vld1q_s8(w + 16 * (t + i));
      EDGE_UNROLL
      for (int a = 0; a < A; ++a) {
        const int8x16_t y = acts.q[a][t + i];
        low[a] = i == 0 ? vmull_s8(vget_low_s8(x), vget_low_s8(y))
                        : vmlal_s8(low[a], vget_low_s8(x), vget_low_s8(y));
        high[a] = i == 0 ? vmull_high_s8(x, y) : vmlal_high_s8(high[a], x, y);
      }
    }
  }
};

}  // namespace
}  // namespace arm_neon

void gemm_e2_16_a8_neon(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Multiply, E2_16<true>>>(args);
}
void gemm_e3_32_a8_neon(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Multiply, E3_32<true>>>(args);
}
void gemm_e4_16_a8_neon(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Multiply, E4_16<true>>>(args);
}
void gemm_e4_32_a8_neon(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Multiply, E4_32<true>>>(args);
}
void gemm_e6_16_a8_neon(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Multiply, E6_16<true>>>(args);
}
void gemm_e8_32_a8_neon(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Multiply, E8_32<true>>>(args);
}
void gemm_k4_32_a8_neon(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Multiply, K4_32<true>>>(args);
}
void gemm_l4_32_a8_neon(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Multiply, L4_32<true>>>(args);
}
void gemm_l8_32_a8_neon(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Multiply, L8_32<true>>>(args);
}

}  // namespace edge
