// E4_16 and E4_32 x int8, AVX2.
#include "kernels/x86_avx2/matmul_a8.h"

namespace edge {
namespace {

// Adds 2 to the weights of rows whose scale byte selects LUT 1 (LUT 1 = LUT 0 + 2).
EDGE_INLINE void shift_weights(__m256i* w, const uint8_t* sc) {
  const __m256i one = _mm256_set1_epi32(1);
  const __m256i lut1 = _mm256_cmpeq_epi32(_mm256_and_si256(wide_scale_bytes(sc), one), one);
  const __m256i two = _mm256_and_si256(lut1, _mm256_set1_epi8(2));
  for (int t = 0; t < 4; ++t) w[t] = _mm256_add_epi8(w[t], two);
}

EDGE_INLINE void unpack_nibbles(const uint8_t* nibbles, __m256i* w) {
  const __m256i lut =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kLutE4)));
  const __m256i low = _mm256_set1_epi8(15);
  for (int j = 0; j < 4; ++j) {
    const __m256i x = load(nibbles + 64 * j);
    w[2 * j] = _mm256_shuffle_epi8(lut, _mm256_and_si256(x, low));
    w[2 * j + 1] = _mm256_shuffle_epi8(lut, _mm256_and_si256(_mm256_srli_epi16(x, 4), low));
  }
}

struct E4_16 {
  static constexpr int kTileBytes = sizeof(TileE4_16);
  __m256i w[8];
  __m256 s0, s1;

  EDGE_MEMBER_INLINE E4_16(const uint8_t* tile, int half)
      : s0(scales(tile + 8 * half)), s1(scales(tile + 16 + 8 * half)) {
    unpack_nibbles(tile + 32 + 32 * half, w);
    shift_weights(w, tile + 8 * half);
    shift_weights(w + 4, tile + 16 + 8 * half);
  }
  // float(s0*D0 + s1*D1): both products are exact in f32, so the fma rounds the exact sum once.
  EDGE_MEMBER_INLINE __m256 block_sum(const int8_t* a, const int32_t* bias) const {
    const __m256i d0 = dot4(_mm256_set1_epi32(bias[0]), w, a);
    const __m256i d1 = dot4(_mm256_set1_epi32(bias[1]), w + 4, a + 16);
    return _mm256_fmadd_ps(s1, _mm256_cvtepi32_ps(d1), _mm256_mul_ps(s0, _mm256_cvtepi32_ps(d0)));
  }
};

struct E4_32 {
  static constexpr int kTileBytes = sizeof(TileE4_32);
  __m256i w[8];
  __m256 s;

  EDGE_MEMBER_INLINE E4_32(const uint8_t* tile, int half) : s(scales(tile + 8 * half)) {
    unpack_nibbles(tile + 16 + 32 * half, w);
    shift_weights(w, tile + 8 * half);
    shift_weights(w + 4, tile + 8 * half);
  }
  EDGE_MEMBER_INLINE __m256 block_sum(const int8_t* a, const int32_t* bias) const {
    const __m256i d0 = dot4(_mm256_set1_epi32(bias[0] + bias[1]), w, a);
    return _mm256_mul_ps(s, _mm256_cvtepi32_ps(dot4(d0, w + 4, a + 16)));
  }
};

}  // namespace

void matmul_e4_16_a8_avx2(const MatmulArgs& args) { matmul<E4_16>(args); }
void matmul_e4_32_a8_avx2(const MatmulArgs& args) { matmul<E4_32>(args); }

}  // namespace edge
