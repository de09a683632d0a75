// The K-templated integer matmul of this ISA: a tile is unpacked once into eight registers (one per
// quad, 16 rows x 4 columns) and used for all K rows. Fmt supplies unpacking and the block sum.
#pragma once

#include <immintrin.h>

#include "base/inline.h"
#include "kernels/matmul_args.h"
#include "kernels/x86_avx512vnni/dot_quad.h"
#include "quant/tile_stream.h"
#include "quant/tiles.h"

namespace edge {
namespace {

// 16 scale bytes, each in all four bytes of its row's lane.
EDGE_INLINE __m512i scale_bytes(const uint8_t* sc) {
  const __m512i lanes =
      _mm512_set_epi32(0x0F0F0F0F, 0x0E0E0E0E, 0x0D0D0D0D, 0x0C0C0C0C, 0x0B0B0B0B, 0x0A0A0A0A,
                       0x09090909, 0x08080808, 0x07070707, 0x06060606, 0x05050505, 0x04040404,
                       0x03030303, 0x02020202, 0x01010101, 0);
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(sc));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), lanes);
}

// 16 group scales as floats (group_scale() of quant/tiles.h): the bits of the scale under the
// exponent of 2^23 are 2^23 + sc, which is an instruction less than a conversion.
template <int kMask = 1>
EDGE_INLINE __m512 scales(__m512i bytes) {
  constexpr int kAndOr = 0xEA;
  const __m512i bits = _mm512_ternarylogic_epi32(bytes, _mm512_set1_epi32(0xFF & ~kMask),
                                                 _mm512_set1_epi32(0x4B000000), kAndOr);
  constexpr float kOffset = 0x1p23f + 128 - (kMask + 1) / 2;
  return _mm512_sub_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(kOffset));
}

EDGE_INLINE __m512 load_f16(const uint8_t* halves) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves)));
}

// acc + four quads of weights times 16 activations.
EDGE_INLINE __m512i dot4(__m512i acc, const __m512i* w, const int8_t* a) {
  for (int t = 0; t < 4; ++t) acc = dot_quad(acc, w[t], a + 4 * t);
  return acc;
}

// float(s0*D0 + s1*D1): both products are exact in f32, so the fma rounds the exact sum once.
EDGE_INLINE __m512 two_groups(const __m512* s, __m512i d0, __m512i d1) {
  return _mm512_fmadd_ps(s[1], _mm512_cvtepi32_ps(d1), _mm512_mul_ps(s[0], _mm512_cvtepi32_ps(d0)));
}

// Reads tile bytes ahead into L1: the hardware prefetcher stops at 4 KiB boundaries. A core reads
// so many bytes in a quarter of a microsecond; half as many were 2 to 4 % slower.
template <int kBytes>
EDGE_INLINE void prefetch_ahead(const uint8_t* tile) {
  constexpr int kDistance = 5120;
  for (int b = 0; b < kBytes; b += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(tile) + kDistance + b, _MM_HINT_T0);
  }
}

template <class Fmt, int K>
EDGE_INLINE void strip_rows(const uint8_t* strip, const MatmulArgs& args, float* y) {
  const int64_t n_tiles = args.n_tiles;
  const uint8_t* tile = strip + tiles_offset_of<Fmt>(n_tiles);
  __m512 sum[K];
  EDGE_UNROLL
  for (int r = 0; r < K; ++r) sum[r] = _mm512_setzero_ps();
  for (int64_t i = 0; i < n_tiles; ++i, tile += Fmt::kTileBytes) {
    prefetch_ahead<Fmt::kTileBytes>(tile);
    const typename Fmt::template Unpacked<K> unpacked(packed_tile<Fmt>(strip, tile, i));
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) {
      const int64_t block = i * K + r;
      const __m512 x = unpacked.block_sum(args.q + 32 * block, args.bias + 2 * block);
      sum[r] = _mm512_fmadd_ps(x, _mm512_set1_ps(args.d[block]), sum[r]);
    }
  }
  const __m512 d_row = _mm512_loadu_ps(reinterpret_cast<const float*>(strip));
  EDGE_UNROLL
  for (int r = 0; r < K; ++r) {
    _mm512_storeu_ps(y + r * args.y_stride, _mm512_mul_ps(sum[r], d_row));
  }
}

template <class Fmt, int K>
void matmul_k(const MatmulArgs& args) {
  const size_t strip_size = strip_bytes_of<Fmt>(Fmt::kTileBytes, args.n_tiles);
  for (int64_t s = 0; s < args.n_strips; ++s) {
    strip_rows<Fmt, K>(args.strips + static_cast<size_t>(s) * strip_size, args,
                       args.y + s * kTileRows);
  }
}

template <class Fmt>
EDGE_INLINE void matmul(const MatmulArgs& args) {
  static constexpr MatmulFn kByRows[kMaxKRows] = {
      matmul_k<Fmt, 1>,  matmul_k<Fmt, 2>,  matmul_k<Fmt, 3>,  matmul_k<Fmt, 4>,
      matmul_k<Fmt, 5>,  matmul_k<Fmt, 6>,  matmul_k<Fmt, 7>,  matmul_k<Fmt, 8>,
      matmul_k<Fmt, 9>,  matmul_k<Fmt, 10>, matmul_k<Fmt, 11>, matmul_k<Fmt, 12>,
      matmul_k<Fmt, 13>, matmul_k<Fmt, 14>, matmul_k<Fmt, 15>, matmul_k<Fmt, 16>};
  kByRows[args.n_rows - 1](args);
}

}  // namespace
}  // namespace edge
