// E formats x int8 with the dot products of armv8.2: one instruction is a quad of four rows.
#include "kernels/arm_neon/matmul_a8.h"

namespace edge {
namespace {

struct NeonDot {
  static constexpr bool kPairs = false;
  const int8x16_t* w;
  EDGE_MEMBER_INLINE explicit NeonDot(const int8x16_t* weights) : w(weights) {}

  template <class Fmt>
  EDGE_MEMBER_INLINE void dot(const Fmt& part, const ActBlock& a, int32x4_t* sum) const {
    const int8x16_t first = vld1q_s8(a.q);
    const int8x16_t second = vld1q_s8(a.q + 16);
    sum[0] = quads(part.start(a.bias, 0), w, first);
    if constexpr (Fmt::kGroups == 1) {
      sum[0] = quads(sum[0], w + 4, second);
    } else {
      sum[1] = quads(part.start(a.bias, 1), w + 4, second);
    }
  }

 private:
  static EDGE_MEMBER_INLINE int32x4_t quads(int32x4_t sum, const int8x16_t* w, int8x16_t a) {
    sum = vdotq_laneq_s32(sum, w[0], a, 0);
    sum = vdotq_laneq_s32(sum, w[1], a, 1);
    sum = vdotq_laneq_s32(sum, w[2], a, 2);
    return vdotq_laneq_s32(sum, w[3], a, 3);
  }
};

}  // namespace

void matmul_e2_16_a8_neon_dot(const MatmulArgs& args) { matmul<NeonDot, E2_16>(args); }
void matmul_e3_32_a8_neon_dot(const MatmulArgs& args) { matmul<NeonDot, E3_32>(args); }
void matmul_e4_16_a8_neon_dot(const MatmulArgs& args) { matmul<NeonDot, E4_16>(args); }
void matmul_e4_32_a8_neon_dot(const MatmulArgs& args) { matmul<NeonDot, E4_32>(args); }
void matmul_e6_16_a8_neon_dot(const MatmulArgs& args) { matmul<NeonDot, E6_16>(args); }
void matmul_e8_32_a8_neon_dot(const MatmulArgs& args) { matmul<NeonDot, E8_32>(args); }
void matmul_k4_32_a8_neon_dot(const MatmulArgs& args) { matmul<NeonDot, K4_32>(args); }
void matmul_l4_32_a8_neon_dot(const MatmulArgs& args) { matmul<NeonDot, L4_32>(args); }
void matmul_l8_32_a8_neon_dot(const MatmulArgs& args) { matmul<NeonDot, L8_32>(args); }

}  // namespace edge
