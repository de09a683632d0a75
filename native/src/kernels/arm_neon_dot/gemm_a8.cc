// E formats x int8 for many rows, with dot products: four rows of weights by four of activations.
#include "kernels/arm_neon/gemm_a8.h"

namespace edge {
namespace arm_neon {
namespace {

struct Dot : PartUnits {
  static constexpr int kActUnits = 4;

  template <int A>
  struct Acts {
    int8x16_t q[A][2];
    float32x4_t d[A];
    EDGE_MEMBER_INLINE explicit Acts(const BlockRows& rows) {
      EDGE_UNROLL
      for (int a = 0; a < A; ++a) {
        q[a][0] = vld1q_s8(rows.q + kTileK * a);
        q[a][1] = vld1q_s8(rows.q + kTileK * a + 16);
        d[a] = vld1q_dup_f32(rows.d + a);
      }
    }
  };

  template <class Part, int A>
  static EDGE_MEMBER_INLINE void dots(const int8_t* w, const Acts<A>& acts, int group,
                                      int32x4_t* sum) {
    EDGE_UNROLL
    for (int a = 0; a < A; ++a) sum[a] = zero_sum();
    four_quads<A>(w + 64 * group, acts, group, sum);
    if constexpr (Part::kGroups == 1) four_quads<A>(w + 64, acts, 1, sum);
  }

 private:
  template <int A>
  static EDGE_MEMBER_INLINE void four_quads(const int8_t* w, const Acts<A>& acts, int half,
                                            int32x4_t* sum) {
    quad<0>(w, acts, half, sum);
    quad<1>(w, acts, half, sum);
    quad<2>(w, acts, half, sum);
    quad<3>(w, acts, half, sum);
  }
  template <int kLane, int A>
  static EDGE_MEMBER_INLINE void quad(const int8_t* w, const Acts<A>& acts, int half,
                                      int32x4_t* sum) {
    const int8x16_t weights = vld1q_s8(w + 16 * kLane);
    EDGE_UNROLL
    for (int a = 0; a < A; ++a) {
      sum[a] = vdotq_laneq_s32(sum[a], weights, acts.q[a][half], kLane);
    }
  }
};

}  // namespace
}  // namespace arm_neon

void gemm_e2_16_a8_neon_dot(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Dot, E2_16<true>>>(args);
}
void gemm_e3_32_a8_neon_dot(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Dot, E3_32<true>>>(args);
}
void gemm_e4_16_a8_neon_dot(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Dot, E4_16<true>>>(args);
}
void gemm_e4_32_a8_neon_dot(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Dot, E4_32<true>>>(args);
}
void gemm_e6_16_a8_neon_dot(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Dot, E6_16<true>>>(args);
}
void gemm_e8_32_a8_neon_dot(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Dot, E8_32<true>>>(args);
}
void gemm_k4_32_a8_neon_dot(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Dot, K4_32<true>>>(args);
}
void gemm_l4_32_a8_neon_dot(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Dot, L4_32<true>>>(args);
}
void gemm_l8_32_a8_neon_dot(const MatmulArgs& args) {
  arm_neon::gemm<arm_neon::Format<arm_neon::Dot, L8_32<true>>>(args);
}

}  // namespace edge
