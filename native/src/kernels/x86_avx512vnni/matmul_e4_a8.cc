// E4_16 and E4_32 x int8, AVX-512 VNNI: one zmm holds a quad of 16 rows, vpshufb is the LUT.
#include "kernels/x86_avx512vnni/gemm_a8.h"
#include "kernels/x86_avx512vnni/matmul_a8.h"

namespace edge {
namespace {

EDGE_INLINE void unpack_nibbles(const uint8_t* nibbles, __m512i* w) {
  const __m512i lut =
      _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kLutE4)));
  const __m512i low = _mm512_set1_epi8(15);
  for (int j = 0; j < 4; ++j) {
    const __m512i x = _mm512_loadu_si512(nibbles + 64 * j);
    w[2 * j] = _mm512_shuffle_epi8(lut, _mm512_and_si512(x, low));
    w[2 * j + 1] = _mm512_shuffle_epi8(lut, _mm512_and_si512(_mm512_srli_epi16(x, 4), low));
  }
}

// Rows whose scale byte selects LUT 1.
EDGE_INLINE __mmask16 lut1_rows(__m128i sc) {
  return _mm512_test_epi32_mask(_mm512_cvtepu8_epi32(sc), _mm512_set1_epi32(1));
}

// LUT 1 = LUT 0 + 2. For one row it is cheaper to correct the sum (+2 * sum(a) = -bias / 32), for
// more to correct the weights once.
constexpr int kFirstKToShiftWeights = 2;

EDGE_INLINE void shift_weights(__m512i* w, __mmask16 lut1) {
  const __m512i two = _mm512_maskz_set1_epi32(lut1, 0x02020202);
  for (int t = 0; t < 4; ++t) w[t] = _mm512_add_epi8(w[t], two);
}

template <int K>
EDGE_INLINE __m512i zero_point(const int32_t* bias, __mmask16 lut1) {
  const __m512i b = _mm512_set1_epi32(*bias);
  if constexpr (K >= kFirstKToShiftWeights) return b;
  return _mm512_mask_sub_epi32(b, lut1, b, _mm512_srai_epi32(b, 5));
}

struct E4_16 {
  static constexpr int kTileBytes = sizeof(TileE4_16);
  static constexpr int kGroups = 2;
  static constexpr int kZero = kLutE4Zero;

  template <int K>
  struct Unpacked {
    __m512i w[8];
    __m512 s[2];
    __mmask16 lut1[2];

    EDGE_MEMBER_INLINE explicit Unpacked(const uint8_t* tile) {
      const __m128i sc0 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tile));
      const __m128i sc1 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tile + 16));
      s[0] = scales(sc0);
      s[1] = scales(sc1);
      lut1[0] = lut1_rows(sc0);
      lut1[1] = lut1_rows(sc1);
      unpack_nibbles(tile + 32, w);
      if constexpr (K >= kFirstKToShiftWeights) {
        shift_weights(w, lut1[0]);
        shift_weights(w + 4, lut1[1]);
      }
    }
    EDGE_MEMBER_INLINE __m512 block_sum(const int8_t* a, const int32_t* bias) const {
      const __m512i d0 = dot4(zero_point<K>(bias, lut1[0]), w, a);
      const __m512i d1 = dot4(zero_point<K>(bias + 1, lut1[1]), w + 4, a + 16);
      return two_groups(s, d0, d1);
    }
  };
};

struct E4_32 {
  static constexpr int kTileBytes = sizeof(TileE4_32);
  static constexpr int kGroups = 1;
  static constexpr int kZero = kLutE4Zero;

  template <int K>
  struct Unpacked {
    __m512i w[8];
    __m512 s[1];
    __mmask16 lut1;

    EDGE_MEMBER_INLINE explicit Unpacked(const uint8_t* tile) {
      const __m128i sc = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tile));
      s[0] = scales(sc);
      lut1 = lut1_rows(sc);
      unpack_nibbles(tile + 16, w);
      if constexpr (K >= kFirstKToShiftWeights) {
        shift_weights(w, lut1);
        shift_weights(w + 4, lut1);
      }
    }
    EDGE_MEMBER_INLINE __m512 block_sum(const int8_t* a, const int32_t* bias) const {
      const __m512i d0 = dot4(zero_point<K>(bias, lut1), w, a);
      const __m512i d1 = dot4(zero_point<K>(bias + 1, lut1), w + 4, a + 16);
      return _mm512_mul_ps(s[0], _mm512_cvtepi32_ps(_mm512_add_epi32(d0, d1)));
    }
  };
};

}  // namespace

void matmul_e4_16_a8_avx512vnni(const MatmulArgs& args) { matmul<E4_16>(args); }
void matmul_e4_32_a8_avx512vnni(const MatmulArgs& args) { matmul<E4_32>(args); }
void gemm_e4_16_a8_avx512vnni(const MatmulArgs& args) { gemm<E4_16>(args); }
void gemm_e4_32_a8_avx512vnni(const MatmulArgs& args) { gemm<E4_32>(args); }

}  // namespace edge
