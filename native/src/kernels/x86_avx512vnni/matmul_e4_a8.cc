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

// Rows whose scale byte selects LUT 1 = LUT 0 + 2. For one row it is cheaper to correct the sum
// (+2 * sum(a) = -bias / 32), for more to correct the weights once.
template <int K>
struct Lut1;

template <>
struct Lut1<1> {
  __mmask16 rows;

  EDGE_MEMBER_INLINE explicit Lut1(__m512i scale_bytes)
      : rows(_mm512_test_epi32_mask(scale_bytes, _mm512_set1_epi32(1))) {}
  EDGE_MEMBER_INLINE void shift_weights(__m512i*) const {}
  EDGE_MEMBER_INLINE __m512i zero_point(const int32_t* bias) const {
    const __m512i b = _mm512_set1_epi32(*bias);
    return _mm512_mask_sub_epi32(b, rows, b, _mm512_srai_epi32(b, 5));
  }
};

template <int K>
struct Lut1 {
  __mmask64 bytes;

  EDGE_MEMBER_INLINE explicit Lut1(__m512i scale_bytes)
      : bytes(_mm512_test_epi8_mask(scale_bytes, _mm512_set1_epi8(1))) {}
  EDGE_MEMBER_INLINE void shift_weights(__m512i* w) const {
    const __m512i two = _mm512_set1_epi8(kLutE4Shift);
    for (int t = 0; t < 4; ++t) w[t] = _mm512_mask_add_epi8(w[t], bytes, w[t], two);
  }
  EDGE_MEMBER_INLINE __m512i zero_point(const int32_t* bias) const {
    return _mm512_set1_epi32(*bias);
  }
};

struct E4_16 {
  static constexpr int kTileBytes = sizeof(TileE4_16);
  static constexpr int kGroups = 2;
  static constexpr int kZero = kLutE4Zero;

  template <int K>
  struct Unpacked {
    __m512i w[8];
    __m512i sc[2];
    __m512 s[2];
    Lut1<K> lut1[2];

    EDGE_MEMBER_INLINE explicit Unpacked(const uint8_t* tile)
        : sc{scale_bytes(tile), scale_bytes(tile + 16)},
          s{scales(sc[0]), scales(sc[1])},
          lut1{Lut1<K>(sc[0]), Lut1<K>(sc[1])} {
      unpack_nibbles(tile + 32, w);
      lut1[0].shift_weights(w);
      lut1[1].shift_weights(w + 4);
    }
    EDGE_MEMBER_INLINE __m512 block_sum(const int8_t* a, const int32_t* bias) const {
      const __m512i d0 = dot4(lut1[0].zero_point(bias), w, a);
      const __m512i d1 = dot4(lut1[1].zero_point(bias + 1), w + 4, a + 16);
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
    __m512i sc;
    __m512 s[1];
    Lut1<K> lut1;

    EDGE_MEMBER_INLINE explicit Unpacked(const uint8_t* tile)
        : sc(scale_bytes(tile)), s{scales(sc)}, lut1(sc) {
      unpack_nibbles(tile + 16, w);
      lut1.shift_weights(w);
      lut1.shift_weights(w + 4);
    }
    EDGE_MEMBER_INLINE __m512 block_sum(const int8_t* a, const int32_t* bias) const {
      const __m512i d0 = dot4(lut1.zero_point(bias), w, a);
      const __m512i d1 = dot4(lut1.zero_point(bias + 1), w + 4, a + 16);
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
