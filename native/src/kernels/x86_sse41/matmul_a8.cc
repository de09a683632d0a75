// E formats x int8 for CPUs without AVX2. A tile is unpacked once into bytes in L1 and used for all
// K rows; four xmm cover the 16 rows of a quad. maddubs cannot saturate (quant/tiles.h).
#include <immintrin.h>

#include "base/inline.h"
#include "kernels/matmul_args.h"
#include "kernels/x86_sse41/vec16.h"
#include "quant/tiles.h"

namespace edge {
namespace {

using namespace x86_sse41;

struct alignas(64) QuadBytes {
  uint8_t quad[8][64];
};

EDGE_INLINE __m128i load_q(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
EDGE_INLINE void store_q(uint8_t* p, __m128i x) {
  _mm_store_si128(reinterpret_cast<__m128i*>(p), x);
}

EDGE_INLINE V scales(const uint8_t* sc) {
  return to_float(sub(bit_and(load_u8(sc), set1_i(0xFE)), set1_i(127)));
}

// 2 in every byte of the four rows whose scale byte selects LUT 1 (LUT 1 = LUT 0 + 2).
EDGE_INLINE __m128i lut_shift(const uint8_t* sc) {
  int32_t bytes;
  __builtin_memcpy(&bytes, sc, 4);
  const __m128i one = _mm_set1_epi32(1);
  const __m128i wide = _mm_and_si128(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)), one);
  return _mm_and_si128(_mm_cmpeq_epi32(wide, one), _mm_set1_epi8(2));
}

EDGE_INLINE void unpack_e4(const uint8_t* nibbles, const uint8_t* sc_low, const uint8_t* sc_high,
                           QuadBytes& out) {
  const __m128i lut = load_q(kLutE4);
  const __m128i low = _mm_set1_epi8(15);
  for (int j = 0; j < 4; ++j) {
    const uint8_t* sc = j < 2 ? sc_low : sc_high;
    for (int part = 0; part < 4; ++part) {
      const __m128i x = load_q(nibbles + 64 * j + 16 * part);
      const __m128i shift = lut_shift(sc + 4 * part);
      const __m128i even = _mm_shuffle_epi8(lut, _mm_and_si128(x, low));
      const __m128i odd = _mm_shuffle_epi8(lut, _mm_and_si128(_mm_srli_epi16(x, 4), low));
      store_q(out.quad[2 * j] + 16 * part, _mm_add_epi8(even, shift));
      store_q(out.quad[2 * j + 1] + 16 * part, _mm_add_epi8(odd, shift));
    }
  }
}

// acc + quads [t0, t0 + 4) of unsigned weights times 16 activations.
EDGE_INLINE I dot4(I acc, const QuadBytes& w, int t0, const int8_t* a) {
  const __m128i one = _mm_set1_epi16(1);
  for (int t = t0; t < t0 + 4; ++t) {
    int32_t quad;
    __builtin_memcpy(&quad, a + 4 * t, 4);
    const __m128i act = _mm_set1_epi32(quad);
    const uint8_t* p = w.quad[t];
    const I products = {_mm_madd_epi16(_mm_maddubs_epi16(load_q(p), act), one),
                        _mm_madd_epi16(_mm_maddubs_epi16(load_q(p + 16), act), one),
                        _mm_madd_epi16(_mm_maddubs_epi16(load_q(p + 32), act), one),
                        _mm_madd_epi16(_mm_maddubs_epi16(load_q(p + 48), act), one)};
    acc = add(acc, products);
  }
  return acc;
}

// float(s0*D0 + s1*D1): both products are exact in f32, so the sum is rounded once.
EDGE_INLINE V two_groups(V s0, I d0, V s1, I d1) {
  return add(mul(s0, to_float(d0)), mul(s1, to_float(d1)));
}

struct E4_16 {
  static constexpr int kTileBytes = sizeof(TileE4_16);
  QuadBytes w;
  V s0, s1;
  EDGE_MEMBER_INLINE explicit E4_16(const uint8_t* tile) : s0(scales(tile)), s1(scales(tile + 16)) {
    unpack_e4(tile + 32, tile, tile + 16, w);
  }
  EDGE_MEMBER_INLINE V block_sum(const int8_t* a, const int32_t* bias) const {
    return two_groups(s0, dot4(set1_i(bias[0]), w, 0, a), s1, dot4(set1_i(bias[1]), w, 4, a));
  }
};

struct E4_32 {
  static constexpr int kTileBytes = sizeof(TileE4_32);
  QuadBytes w;
  V s;
  EDGE_MEMBER_INLINE explicit E4_32(const uint8_t* tile) : s(scales(tile)) {
    unpack_e4(tile + 16, tile, tile, w);
  }
  EDGE_MEMBER_INLINE V block_sum(const int8_t* a, const int32_t* bias) const {
    return mul(s, to_float(dot4(dot4(set1_i(bias[0] + bias[1]), w, 0, a), w, 4, a)));
  }
};

struct E6_16 {
  static constexpr int kTileBytes = sizeof(TileE6_16);
  QuadBytes w;
  V s0, s1;
  EDGE_MEMBER_INLINE explicit E6_16(const uint8_t* tile) : s0(scales(tile)), s1(scales(tile + 16)) {
    const __m128i low = _mm_set1_epi8(15);
    const __m128i high = _mm_set1_epi8(0x30);
    for (int j = 0; j < 4; ++j) {
      for (int part = 0; part < 4; ++part) {
        const __m128i x = load_q(tile + 32 + 64 * j + 16 * part);
        const __m128i h = load_q(tile + 288 + 64 * (j / 2) + 16 * part);
        // Quads 4h + 0, 1 sit in bits 0..3 of the high byte, quads 4h + 2, 3 in bits 4..7.
        const __m128i even = j % 2 == 0 ? _mm_slli_epi16(h, 4) : h;
        const __m128i odd = j % 2 == 0 ? _mm_slli_epi16(h, 2) : _mm_srli_epi16(h, 2);
        store_q(w.quad[2 * j] + 16 * part,
                _mm_or_si128(_mm_and_si128(x, low), _mm_and_si128(even, high)));
        store_q(w.quad[2 * j + 1] + 16 * part,
                _mm_or_si128(_mm_and_si128(_mm_srli_epi16(x, 4), low), _mm_and_si128(odd, high)));
      }
    }
  }
  // The zero point is 32, half of what bias carries.
  EDGE_MEMBER_INLINE V block_sum(const int8_t* a, const int32_t* bias) const {
    return two_groups(s0, dot4(set1_i(bias[0] / 2), w, 0, a), s1,
                      dot4(set1_i(bias[1] / 2), w, 4, a));
  }
};

struct E8_32 {
  static constexpr int kTileBytes = sizeof(TileE8_32);
  const uint8_t* quads;
  V s;
  EDGE_MEMBER_INLINE explicit E8_32(const uint8_t* tile) : quads(tile + 16), s(scales(tile)) {}
  // Weights need the full byte, so the sign moves to the activations; no zero point is left.
  EDGE_MEMBER_INLINE V block_sum(const int8_t* a, const int32_t*) const {
    I acc = zero_i();
    for (int t = 0; t < 8; ++t) {
      int32_t quad;
      __builtin_memcpy(&quad, a + 4 * t, 4);
      const __m128i act = _mm_set1_epi32(quad);
      const uint8_t* p = quads + 64 * t;
      acc = add(acc, I{signed_quad(p, act), signed_quad(p + 16, act), signed_quad(p + 32, act),
                       signed_quad(p + 48, act)});
    }
    return mul(s, to_float(acc));
  }
  static EDGE_MEMBER_INLINE __m128i signed_quad(const uint8_t* p, __m128i act) {
    const __m128i w = _mm_xor_si128(load_q(p), _mm_set1_epi8(-128));
    const __m128i pairs = _mm_maddubs_epi16(_mm_abs_epi8(w), _mm_sign_epi8(act, w));
    return _mm_madd_epi16(pairs, _mm_set1_epi16(1));
  }
};

template <class Fmt>
void matmul(const MatmulArgs& args) {
  const size_t strip_size = kStripHeaderBytes + Fmt::kTileBytes * static_cast<size_t>(args.n_tiles);
  for (int64_t s = 0; s < args.n_strips; ++s) {
    const uint8_t* strip = args.strips + static_cast<size_t>(s) * strip_size;
    const uint8_t* tile = strip + kStripHeaderBytes;
    V sum[kMaxKRows];
    for (int r = 0; r < args.n_rows; ++r) sum[r] = zero();
    for (int64_t i = 0; i < args.n_tiles; ++i, tile += Fmt::kTileBytes) {
      const Fmt unpacked(tile);
      for (int r = 0; r < args.n_rows; ++r) {
        const int64_t block = i * args.n_rows + r;
        const V x = unpacked.block_sum(args.q + 32 * block, args.bias + 2 * block);
        sum[r] = fma(x, set1(args.d[block]), sum[r]);
      }
    }
    const V d_row = load(reinterpret_cast<const float*>(strip));
    for (int r = 0; r < args.n_rows; ++r) {
      store(args.y + r * args.y_stride + s * kTileRows, mul(sum[r], d_row));
    }
  }
}

}  // namespace

void matmul_e4_16_a8_sse41(const MatmulArgs& args) { matmul<E4_16>(args); }
void matmul_e4_32_a8_sse41(const MatmulArgs& args) { matmul<E4_32>(args); }
void matmul_e6_16_a8_sse41(const MatmulArgs& args) { matmul<E6_16>(args); }
void matmul_e8_32_a8_sse41(const MatmulArgs& args) { matmul<E8_32>(args); }

}  // namespace edge
