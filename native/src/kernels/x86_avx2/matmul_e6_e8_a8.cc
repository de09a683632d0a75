// E6_16 and E8_32 x int8, AVX2.
#include "kernels/x86_avx2/matmul_a8.h"

namespace edge {
namespace {

struct E6_16 {
  static constexpr int kTileBytes = sizeof(TileE6_16);
  __m256i w[8];
  __m256 s0, s1;

  EDGE_MEMBER_INLINE E6_16(const uint8_t* tile, int half)
      : s0(scales(tile + 8 * half)), s1(scales(tile + 16 + 8 * half)) {
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i high = _mm256_set1_epi8(0x30);
    const __m256i h0 = load(tile + 288 + 32 * half);
    const __m256i h1 = load(tile + 352 + 32 * half);
    const __m256i bits[8] = {
        _mm256_slli_epi16(h0, 4), _mm256_slli_epi16(h0, 2), h0, _mm256_srli_epi16(h0, 2),
        _mm256_slli_epi16(h1, 4), _mm256_slli_epi16(h1, 2), h1, _mm256_srli_epi16(h1, 2)};
    for (int j = 0; j < 4; ++j) {
      const __m256i x = load(tile + 32 + 64 * j + 32 * half);
      w[2 * j] = _mm256_or_si256(_mm256_and_si256(x, low), _mm256_and_si256(bits[2 * j], high));
      w[2 * j + 1] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(x, 4), low),
                                     _mm256_and_si256(bits[2 * j + 1], high));
    }
  }
  // The zero point is 32, half of what bias carries.
  EDGE_MEMBER_INLINE __m256 block_sum(const int8_t* a, const int32_t* bias) const {
    const __m256i d0 = dot4(_mm256_set1_epi32(bias[0] / 2), w, a);
    const __m256i d1 = dot4(_mm256_set1_epi32(bias[1] / 2), w + 4, a + 16);
    return _mm256_fmadd_ps(s1, _mm256_cvtepi32_ps(d1), _mm256_mul_ps(s0, _mm256_cvtepi32_ps(d0)));
  }
};

struct E8_32 {
  static constexpr int kTileBytes = sizeof(TileE8_32);
  __m256i magnitude[8];  // |w - 128| as unsigned bytes
  __m256i w[8];          // w - 128, for the signs
  __m256 s;

  EDGE_MEMBER_INLINE E8_32(const uint8_t* tile, int half) : s(scales(tile + 8 * half)) {
    for (int t = 0; t < 8; ++t) {
      w[t] = _mm256_xor_si256(load(tile + 16 + 64 * t + 32 * half), _mm256_set1_epi8(-128));
      magnitude[t] = _mm256_abs_epi8(w[t]);
    }
  }
  // Weights need the full byte here, so the sign moves to the activations; no zero point is left.
  EDGE_MEMBER_INLINE __m256 block_sum(const int8_t* a, const int32_t*) const {
    const __m256i one = _mm256_set1_epi16(1);
    __m256i acc = _mm256_setzero_si256();
    for (int t = 0; t < 8; ++t) {
      const __m256i signed_a = _mm256_sign_epi8(broadcast_quad(a + 4 * t), w[t]);
      const __m256i pairs = _mm256_maddubs_epi16(magnitude[t], signed_a);
      acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, one));
    }
    return _mm256_mul_ps(s, _mm256_cvtepi32_ps(acc));
  }
};

}  // namespace

void matmul_e6_16_a8_avx2(const MatmulArgs& args) { matmul<E6_16>(args); }
void matmul_e8_32_a8_avx2(const MatmulArgs& args) { matmul<E8_32>(args); }

}  // namespace edge
