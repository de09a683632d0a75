// E2_16 and E3_32 x int8, AVX-512 VNNI. A row's group has one of several zero points. For few rows
// of activations sums start with minus the zero point times the sum of the activations; for more,
// and for the gemm, weights are moved once so that all have the zero point 64 that bias carries.
#include "kernels/x86_avx512vnni/gemm_a8.h"
#include "kernels/x86_avx512vnni/matmul_a8.h"

namespace edge {
namespace {

constexpr int kCommonZero = 64;
constexpr int kFirstKToMoveWeights = 4;

EDGE_INLINE __m512i lut(const uint8_t* bytes) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}

// kZero - kStep * (sc & kMask) of 16 rows, as i32.
template <int kZero, int kStep, int kMask>
EDGE_INLINE __m512i zero_points(__m512i sc) {
  static_assert(kStep == 2 || kStep == 4);
  const __m512i index = _mm512_and_si512(sc, _mm512_set1_epi32(kMask));
  return _mm512_sub_epi32(_mm512_set1_epi32(kZero), _mm512_slli_epi32(index, kStep / 2));
}

// Weights of four quads, from zero points of their own to the common one; bytes stay below 128.
EDGE_INLINE void move_weights(__m512i* w, __m512i zero) {
  const __m512i first_bytes =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
  const __m512i by =
      _mm512_shuffle_epi8(_mm512_sub_epi32(_mm512_set1_epi32(kCommonZero), zero), first_bytes);
  for (int t = 0; t < 4; ++t) w[t] = _mm512_add_epi8(w[t], by);
}

// What the sum of a group starts with, from bias = -64 * sum(q).
template <int K>
EDGE_INLINE __m512i start(__m512i zero, int32_t bias) {
  if constexpr (K >= kFirstKToMoveWeights) return _mm512_set1_epi32(bias);
  return _mm512_madd_epi16(zero, _mm512_set1_epi32(bias >> 6));  // both fit i16
}

struct E2_16 {
  static constexpr int kTileBytes = sizeof(TileE2_16);
  static constexpr int kGroups = 2;
  static constexpr int kZero = kCommonZero;

  template <int K>
  struct Unpacked {
    __m512i w[8];
    __m512 s[2];
    __m512i zero[2];

    EDGE_MEMBER_INLINE explicit Unpacked(const uint8_t* tile) {
      const __m512i low = _mm512_set1_epi8(15);
      for (int g = 0; g < 2; ++g) {
        const __m512i sc = scale_bytes(tile + 16 * g);
        s[g] = scales<kE2ZeroMask>(sc);
        zero[g] = zero_points<kE2Zero, kE2ZeroStep, kE2ZeroMask>(sc);
        const __m512i x = _mm512_loadu_si512(tile + 32 + 64 * g);
        const __m512i quads01 = _mm512_and_si512(x, low);
        const __m512i quads23 = _mm512_and_si512(_mm512_srli_epi16(x, 4), low);
        w[4 * g] = _mm512_shuffle_epi8(lut(kLutE2Low), quads01);
        w[4 * g + 1] = _mm512_shuffle_epi8(lut(kLutE2High), quads01);
        w[4 * g + 2] = _mm512_shuffle_epi8(lut(kLutE2Low), quads23);
        w[4 * g + 3] = _mm512_shuffle_epi8(lut(kLutE2High), quads23);
        if constexpr (K >= kFirstKToMoveWeights) move_weights(w + 4 * g, zero[g]);
      }
    }
    EDGE_MEMBER_INLINE __m512 block_sum(const int8_t* a, const int32_t* bias) const {
      const __m512i d0 = dot4(start<K>(zero[0], bias[0]), w, a);
      const __m512i d1 = dot4(start<K>(zero[1], bias[1]), w + 4, a + 16);
      return two_groups(s, d0, d1);
    }
  };
};

struct E3_32 {
  static constexpr int kTileBytes = sizeof(TileE3_32);
  static constexpr int kGroups = 1;
  static constexpr int kZero = kCommonZero;

  template <int K>
  struct Unpacked {
    __m512i w[8];
    __m512 s[1];
    __m512i zero;

    EDGE_MEMBER_INLINE explicit Unpacked(const uint8_t* tile) {
      const __m512i sc = scale_bytes(tile);
      s[0] = scales<kE3ZeroMask>(sc);
      zero = zero_points<kE3Zero, kE3ZeroStep, kE3ZeroMask>(sc);
      __m512i x[4];
      for (int j = 0; j < 3; ++j) x[j] = _mm512_loadu_si512(tile + 16 + 64 * j);
      // The fourth bits of all nibbles: bits 0, 1 and 2 of quads 6 and 7.
      const __m512i bit0 = _mm512_srli_epi16(x[0], 3);
      const __m512i bit1 = _mm512_srli_epi16(x[1], 2);
      const __m512i bit2 = _mm512_srli_epi16(x[2], 1);
      constexpr int kSelect = 0xCA;  // a ? b : c
      const __m512i bits01 = _mm512_ternarylogic_epi32(_mm512_set1_epi8(0x11), bit0, bit1, kSelect);
      x[3] = _mm512_ternarylogic_epi32(_mm512_set1_epi8(0x33), bits01, bit2, kSelect);
      const __m512i low = _mm512_set1_epi8(15);
      for (int j = 0; j < 4; ++j) {
        w[2 * j] = _mm512_shuffle_epi8(lut(kLutE3), _mm512_and_si512(x[j], low));
        w[2 * j + 1] =
            _mm512_shuffle_epi8(lut(kLutE3), _mm512_and_si512(_mm512_srli_epi16(x[j], 4), low));
      }
      if constexpr (K >= kFirstKToMoveWeights) {
        move_weights(w, zero);
        move_weights(w + 4, zero);
      }
    }
    EDGE_MEMBER_INLINE __m512 block_sum(const int8_t* a, const int32_t* bias) const {
      const __m512i d0 = dot4(start<K>(zero, bias[0]), w, a);
      const __m512i d1 = dot4(start<K>(zero, bias[1]), w + 4, a + 16);
      return _mm512_mul_ps(s[0], _mm512_cvtepi32_ps(_mm512_add_epi32(d0, d1)));
    }
  };
};

}  // namespace

void matmul_e2_16_a8_avx512vnni(const MatmulArgs& args) { matmul<E2_16>(args); }
void matmul_e3_32_a8_avx512vnni(const MatmulArgs& args) { matmul<E3_32>(args); }
void gemm_e2_16_a8_avx512vnni(const MatmulArgs& args) { gemm<E2_16>(args); }
void gemm_e3_32_a8_avx512vnni(const MatmulArgs& args) { gemm<E3_32>(args); }

}  // namespace edge
