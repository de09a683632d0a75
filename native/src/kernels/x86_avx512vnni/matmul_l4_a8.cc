// L4_32 and K4_32 x int8, AVX-512 VNNI: nibbles are the weights, and each row's zero point or
// minimum meets -sum(q).
#include "kernels/x86_avx512vnni/gemm_a8.h"
#include "kernels/x86_avx512vnni/matmul_a8.h"

namespace edge {
namespace {

// 32 columns of 16 rows; [2j] and [2j + 1] are the halves of group j.
EDGE_INLINE void quads_of_nibbles(const uint8_t* nibbles, __m512i* w) {
  const __m512i low = _mm512_set1_epi8(15);
  for (int j = 0; j < 4; ++j) {
    const __m512i x = _mm512_loadu_si512(nibbles + 64 * j);
    w[2 * j] = _mm512_and_si512(x, low);
    w[2 * j + 1] = _mm512_and_si512(_mm512_srli_epi16(x, 4), low);
  }
}
EDGE_INLINE __m512i load_u8(const uint8_t* bytes) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}
EDGE_INLINE int32_t minus_sum_of(const int32_t* bias) { return (bias[0] + bias[1]) >> 6; }

struct L4_32 {
  static constexpr int kTileBytes = sizeof(TileL4_32);
  static constexpr int kGroups = 1;

  template <int K>
  struct Unpacked {
    __m512i w[8];
    __m512 s[1];
    __m512i zeros;

    EDGE_MEMBER_INLINE explicit Unpacked(const uint8_t* tile) {
      s[0] = load_f16(tile);
      zeros = load_u8(tile + 32);
      quads_of_nibbles(tile + 48, w);
    }
    EDGE_MEMBER_INLINE __m512 block_sum(const int8_t* a, const int32_t* bias) const {
      // As i16 pairs: the upper halves of the zeros are 0.
      const __m512i minus_sum = _mm512_set1_epi32(minus_sum_of(bias));
      const __m512i d0 = dot4(_mm512_madd_epi16(minus_sum, zeros), w, a);
      const __m512i d1 = dot4(_mm512_setzero_si512(), w + 4, a + 16);
      return _mm512_mul_ps(s[0], _mm512_cvtepi32_ps(_mm512_add_epi32(d0, d1)));
    }
  };
};

struct K4_32 {
  static constexpr int kTileBytes = sizeof(TileK4_32);
  static constexpr size_t kHeadBytes = TileK4_32::kHeadBytes;
  static constexpr int kGroups = 1;

  template <int K>
  struct Unpacked {
    __m512i w[8];
    __m512 s[1];
    __m512 mins;

    EDGE_MEMBER_INLINE explicit Unpacked(HeadedTile packed) {
      const uint8_t* tile = packed.tile;
      s[0] = _mm512_mul_ps(load_f16(packed.head), _mm512_cvtepi32_ps(load_u8(tile)));
      mins = _mm512_mul_ps(load_f16(packed.head + 32), _mm512_cvtepi32_ps(load_u8(tile + 16)));
      quads_of_nibbles(tile + 32, w);
    }
    EDGE_MEMBER_INLINE __m512 block_sum(const int8_t* a, const int32_t* bias) const {
      const __m512 minus_sum = _mm512_set1_ps(static_cast<float>(minus_sum_of(bias)));
      const __m512i d0 = dot4(_mm512_setzero_si512(), w, a);
      const __m512i d1 = dot4(_mm512_setzero_si512(), w + 4, a + 16);
      return _mm512_fmadd_ps(s[0], _mm512_cvtepi32_ps(_mm512_add_epi32(d0, d1)),
                             _mm512_mul_ps(mins, minus_sum));
    }
  };
};

}  // namespace

void matmul_k4_32_a8_avx512vnni(const MatmulArgs& args) { matmul<K4_32>(args); }
void gemm_k4_32_a8_avx512vnni(const MatmulArgs& args) { gemm<K4_32>(args); }

void matmul_l4_32_a8_avx512vnni(const MatmulArgs& args) { matmul<L4_32>(args); }
void gemm_l4_32_a8_avx512vnni(const MatmulArgs& args) { gemm<L4_32>(args); }

}  // namespace edge
