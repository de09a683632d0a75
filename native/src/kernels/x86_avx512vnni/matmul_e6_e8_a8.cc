// E6_16, E8_32 and L8_32 x int8, AVX-512 VNNI.
#include "kernels/x86_avx512vnni/gemm_a8.h"
#include "kernels/x86_avx512vnni/matmul_a8.h"

namespace edge {
namespace {

struct E6_16 {
  static constexpr int kTileBytes = sizeof(TileE6_16);
  static constexpr int kGroups = 2;
  static constexpr int kZero = kE6Zero;

  template <int K>
  struct Unpacked {
    __m512i w[8];
    __m512 s[2];

    EDGE_MEMBER_INLINE explicit Unpacked(const uint8_t* tile) {
      s[0] = scales(scale_bytes(tile));
      s[1] = scales(scale_bytes(tile + 16));
      const __m512i low = _mm512_set1_epi8(15);
      const __m512i high = _mm512_set1_epi8(0x30);
      const __m512i h0 = _mm512_loadu_si512(tile + 288);
      const __m512i h1 = _mm512_loadu_si512(tile + 352);
      const __m512i bits[8] = {
          _mm512_slli_epi16(h0, 4), _mm512_slli_epi16(h0, 2), h0, _mm512_srli_epi16(h0, 2),
          _mm512_slli_epi16(h1, 4), _mm512_slli_epi16(h1, 2), h1, _mm512_srli_epi16(h1, 2)};
      for (int j = 0; j < 4; ++j) {
        const __m512i x = _mm512_loadu_si512(tile + 32 + 64 * j);
        w[2 * j] = _mm512_or_si512(_mm512_and_si512(x, low), _mm512_and_si512(bits[2 * j], high));
        w[2 * j + 1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(x, 4), low),
                                       _mm512_and_si512(bits[2 * j + 1], high));
      }
    }
    // The zero point is 32, half of what bias carries.
    EDGE_MEMBER_INLINE __m512 block_sum(const int8_t* a, const int32_t* bias) const {
      const __m512i d0 = dot4(_mm512_set1_epi32(bias[0] / 2), w, a);
      const __m512i d1 = dot4(_mm512_set1_epi32(bias[1] / 2), w + 4, a + 16);
      return two_groups(s, d0, d1);
    }
  };
};

struct UnpackedBytes {
  __m512i w[8];
  __m512 s[1];

  EDGE_MEMBER_INLINE UnpackedBytes(__m512 scales, const uint8_t* quads) {
    s[0] = scales;
    for (int t = 0; t < 8; ++t) w[t] = _mm512_loadu_si512(quads + 64 * t);
  }
  // The zero point is 128, twice what bias carries.
  EDGE_MEMBER_INLINE __m512 block_sum(const int8_t* a, const int32_t* bias) const {
    const __m512i d0 = dot4(_mm512_set1_epi32(2 * bias[0]), w, a);
    const __m512i d1 = dot4(_mm512_set1_epi32(2 * bias[1]), w + 4, a + 16);
    return _mm512_mul_ps(s[0], _mm512_cvtepi32_ps(_mm512_add_epi32(d0, d1)));
  }
};

struct E8_32 {
  static constexpr int kTileBytes = sizeof(TileE8_32);
  static constexpr int kGroups = 1;
  static constexpr int kZero = kE8Zero;

  template <int K>
  struct Unpacked : UnpackedBytes {
    EDGE_MEMBER_INLINE explicit Unpacked(const uint8_t* tile)
        : UnpackedBytes(scales(scale_bytes(tile)), tile + 16) {}
  };
};

struct L8_32 {
  static constexpr int kTileBytes = sizeof(TileL8_32);
  static constexpr int kGroups = 1;
  static constexpr int kZero = kL8Zero;

  template <int K>
  struct Unpacked : UnpackedBytes {
    EDGE_MEMBER_INLINE explicit Unpacked(const uint8_t* tile)
        : UnpackedBytes(load_f16(tile), tile + 32) {}
  };
};

}  // namespace

void matmul_e6_16_a8_avx512vnni(const MatmulArgs& args) { matmul<E6_16>(args); }
void matmul_e8_32_a8_avx512vnni(const MatmulArgs& args) { matmul<E8_32>(args); }
void gemm_e6_16_a8_avx512vnni(const MatmulArgs& args) { gemm<E6_16>(args); }
void gemm_e8_32_a8_avx512vnni(const MatmulArgs& args) { gemm<E8_32>(args); }
void matmul_l8_32_a8_avx512vnni(const MatmulArgs& args) { matmul<L8_32>(args); }
void gemm_l8_32_a8_avx512vnni(const MatmulArgs& args) { gemm<L8_32>(args); }

}  // namespace edge
