// The K-templated integer matmul of this ISA. Sixteen ymm registers hold half a tile (8 rows: eight
// quads), so a strip is swept once per half; rows beyond kMaxK go in further sweeps over the strip,
// which sits in L1/L2 by then. maddubs cannot saturate: |pair| <= 2 * 128 * 127 (quant/tiles.h).
#pragma once

#include <immintrin.h>

#include "base/inline.h"
#include "kernels/matmul_args.h"
#include "quant/tiles.h"

namespace edge {
namespace {

constexpr int kMaxK = 4;

EDGE_INLINE __m256i load(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

EDGE_INLINE __m256i wide_scale_bytes(const uint8_t* sc) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(sc)));
}

// Eight group scales as floats, from eight scale bytes.
EDGE_INLINE __m256 scales(const uint8_t* sc) {
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(
      _mm256_and_si256(wide_scale_bytes(sc), _mm256_set1_epi32(0xFE)), _mm256_set1_epi32(127)));
}

EDGE_INLINE __m256i broadcast_quad(const int8_t* a) {
  int32_t quad;
  __builtin_memcpy(&quad, a, 4);
  return _mm256_set1_epi32(quad);
}

// acc + four quads of unsigned weights times 16 activations.
EDGE_INLINE __m256i dot4(__m256i acc, const __m256i* w, const int8_t* a) {
  const __m256i one = _mm256_set1_epi16(1);
  for (int t = 0; t < 4; ++t) {
    const __m256i pairs = _mm256_maddubs_epi16(w[t], broadcast_quad(a + 4 * t));
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, one));
  }
  return acc;
}

template <class Fmt, int K>
void half_strip_rows(const uint8_t* strip, int half, const MatmulArgs& args, int row0, float* y) {
  const int64_t n_tiles = args.n_tiles;
  const uint8_t* tile = strip + kStripHeaderBytes;
  __m256 sum[K];
  for (int r = 0; r < K; ++r) sum[r] = _mm256_setzero_ps();
  for (int64_t i = 0; i < n_tiles; ++i, tile += Fmt::kTileBytes) {
    _mm_prefetch(reinterpret_cast<const char*>(tile) + 8 * Fmt::kTileBytes, _MM_HINT_T0);
    const Fmt unpacked(tile, half);
    for (int r = 0; r < K; ++r) {
      const int64_t block = i * args.n_rows + row0 + r;
      const __m256 x = unpacked.block_sum(args.q + 32 * block, args.bias + 2 * block);
      sum[r] = _mm256_fmadd_ps(x, _mm256_set1_ps(args.d[block]), sum[r]);
    }
  }
  const __m256 d_row = _mm256_loadu_ps(reinterpret_cast<const float*>(strip) + 8 * half);
  for (int r = 0; r < K; ++r) {
    _mm256_storeu_ps(y + (row0 + r) * args.y_stride + 8 * half, _mm256_mul_ps(sum[r], d_row));
  }
}

template <class Fmt>
EDGE_INLINE void matmul(const MatmulArgs& args) {
  using HalfFn = void (*)(const uint8_t*, int, const MatmulArgs&, int, float*);
  static constexpr HalfFn kByRows[kMaxK] = {half_strip_rows<Fmt, 1>, half_strip_rows<Fmt, 2>,
                                            half_strip_rows<Fmt, 3>, half_strip_rows<Fmt, 4>};
  const size_t strip_size = kStripHeaderBytes + Fmt::kTileBytes * static_cast<size_t>(args.n_tiles);
  for (int64_t s = 0; s < args.n_strips; ++s) {
    const uint8_t* strip = args.strips + static_cast<size_t>(s) * strip_size;
    for (int row0 = 0; row0 < args.n_rows; row0 += kMaxK) {
      const int k = args.n_rows - row0 < kMaxK ? args.n_rows - row0 : kMaxK;
      for (int half = 0; half < 2; ++half) {
        kByRows[k - 1](strip, half, args, row0, args.y + s * kTileRows);
      }
    }
  }
}

}  // namespace
}  // namespace edge
