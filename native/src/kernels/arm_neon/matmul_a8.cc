// E formats x int8, NEON of armv8.0: products as i16, as many added there as cannot overflow, then
// pairwise to i32.
#include "kernels/arm_neon/matmul_a8.h"

namespace edge {
namespace {

struct Neon {
  static constexpr bool kPairs = false;
  const int8x16_t* w;
  EDGE_MEMBER_INLINE explicit Neon(const int8x16_t* weights) : w(weights) {}

  template <class Fmt>
  EDGE_MEMBER_INLINE void dot(const Fmt& part, const ActBlock& a, int32x4_t* sum) const {
    constexpr int kQuads = 8 / Fmt::kGroups;
    for (int g = 0; g < Fmt::kGroups; ++g) {
      sum[g] = vaddq_s32(part.start(a.bias, g), quads<Fmt, kQuads>(w + kQuads * g, a.q + 16 * g));
    }
  }

 private:
  // Sums of rows 0, 1 (low) and 2, 3 (high) of a part in i16, one lane per column of a quad.
  struct Products {
    int16x8_t low, high;
  };
  template <int n>
  static EDGE_MEMBER_INLINE Products products(const int8x16_t* w, const int8_t* a) {
    Products p = {};
    for (int t = 0; t < n; ++t) {
      int32_t quad;
      __builtin_memcpy(&quad, a + 4 * t, 4);
      const int8x16_t act = vreinterpretq_s8_s32(vdupq_n_s32(quad));
      const int8x8_t low = vget_low_s8(w[t]);
      p.low = t == 0 ? vmull_s8(low, vget_low_s8(act)) : vmlal_s8(p.low, low, vget_low_s8(act));
      p.high = t == 0 ? vmull_high_s8(w[t], act) : vmlal_high_s8(p.high, w[t], act);
    }
    return p;
  }
  template <class Fmt, int n>
  static EDGE_MEMBER_INLINE int32x4_t quads(const int8x16_t* w, const int8_t* a) {
    constexpr int kAtOnce = Fmt::kMagnitude * 127 * 4 <= INT16_MAX ? 4 : 2;
    static_assert(Fmt::kMagnitude * 127 * kAtOnce <= INT16_MAX);
    Products p = products<kAtOnce>(w, a);
    int32x4_t low = vpaddlq_s16(p.low);
    int32x4_t high = vpaddlq_s16(p.high);
    for (int t = kAtOnce; t < n; t += kAtOnce) {
      p = products<kAtOnce>(w + t, a + 4 * t);
      low = vpadalq_s16(low, p.low);
      high = vpadalq_s16(high, p.high);
    }
    return vpaddq_s32(low, high);
  }
};

}  // namespace

void matmul_e2_16_a8_neon(const MatmulArgs& args) { matmul<Neon, E2_16>(args); }
void matmul_e3_32_a8_neon(const MatmulArgs& args) { matmul<Neon, E3_32>(args); }
void matmul_e4_16_a8_neon(const MatmulArgs& args) { matmul<Neon, E4_16>(args); }
void matmul_e4_32_a8_neon(const MatmulArgs& args) { matmul<Neon, E4_32>(args); }
void matmul_e6_16_a8_neon(const MatmulArgs& args) { matmul<Neon, E6_16>(args); }
void matmul_e8_32_a8_neon(const MatmulArgs& args) { matmul<Neon, E8_32>(args); }
void matmul_k4_32_a8_neon(const MatmulArgs& args) { matmul<Neon, K4_32>(args); }
void matmul_l4_32_a8_neon(const MatmulArgs& args) { matmul<Neon, L4_32>(args); }
void matmul_l8_32_a8_neon(const MatmulArgs& args) { matmul<Neon, L8_32>(args); }

}  // namespace edge
