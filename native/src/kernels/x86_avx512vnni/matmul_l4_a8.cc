// L4_32 x int8, AVX-512 VNNI: nibbles are the weights, and each row's zero point meets -sum(q).
#include "kernels/x86_avx512vnni/gemm_a8.h"
#include "kernels/x86_avx512vnni/matmul_a8.h"

namespace edge {
namespace {

struct L4_32 {
  static constexpr int kTileBytes = sizeof(TileL4_32);
  static constexpr int kGroups = 1;

  template <int K>
  struct Unpacked {
    __m512i w[8];
    __m512 s[1];
    __m512i zeros;

    EDGE_MEMBER_INLINE explicit Unpacked(const uint8_t* tile) {
      s[0] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile)));
      zeros = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(tile + 32)));
      const __m512i low = _mm512_set1_epi8(15);
      for (int j = 0; j < 4; ++j) {
        const __m512i x = _mm512_loadu_si512(tile + 48 + 64 * j);
        w[2 * j] = _mm512_and_si512(x, low);
        w[2 * j + 1] = _mm512_and_si512(_mm512_srli_epi16(x, 4), low);
      }
    }
    EDGE_MEMBER_INLINE __m512 block_sum(const int8_t* a, const int32_t* bias) const {
      // As i16 pairs: the upper halves of the zeros are 0.
      const __m512i minus_sum = _mm512_set1_epi32((bias[0] + bias[1]) >> 6);
      const __m512i d0 = dot4(_mm512_madd_epi16(minus_sum, zeros), w, a);
      const __m512i d1 = dot4(_mm512_setzero_si512(), w + 4, a + 16);
      return _mm512_mul_ps(s[0], _mm512_cvtepi32_ps(_mm512_add_epi32(d0, d1)));
    }
  };
};

}  // namespace

void matmul_l4_32_a8_avx512vnni(const MatmulArgs& args) { matmul<L4_32>(args); }
void gemm_l4_32_a8_avx512vnni(const MatmulArgs& args) { gemm<L4_32>(args); }

}  // namespace edge
