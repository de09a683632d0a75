// The integer matmul for many rows (prefill): the sums of matmul_a8.h, cache-blocked. Two strips
// are unpacked once, kBlockTiles tiles at a time, into bytes that stay in L1 and serve every panel
// of rows. A quad of activations is broadcast once for both strips; all vector arithmetic of this
// CPU shares two ports, so what counts is that nothing but the dot products and 3 to 4 operations
// per 512 multiply-adds goes there.
//
// Int to float without a conversion: accumulators start at the bits of 1.5 * 2^23, so that read as
// floats they are M + D exactly (|D| < 2^22), and fma(s, M + D, -s*M) is s*D rounded once (s has
// 7 bits, so s*M is exact).
#pragma once

#include <immintrin.h>

#include "base/inline.h"
#include "kernels/matmul_args.h"
#include "quant/tiles.h"

namespace edge {
namespace {

constexpr int kBlockTiles = 8;      // of two strips: 11 KiB unpacked
constexpr int kMaxBlockRows = 128;  // of one pass over the weights; their sums take 16 KiB
constexpr int kStripPair = 2;
constexpr int32_t kMagicBits = 0x4B400000;
constexpr float kMagic = 0x1.8p23f;

struct alignas(64) GemmTile {
  uint8_t w[8][64];
  float s[2][16];           // group scales
  float minus_s_magic[16];  // of the first group
};

template <class Fmt>
EDGE_INLINE void unpack(const uint8_t* packed, GemmTile& out) {
  const typename Fmt::template Unpacked<kMaxKRows> tile(packed);
  for (int t = 0; t < 8; ++t) _mm512_store_si512(out.w[t], tile.w[t]);
  for (int g = 0; g < Fmt::kGroups; ++g) _mm512_store_ps(out.s[g], tile.s[g]);
  _mm512_store_ps(out.minus_s_magic, _mm512_mul_ps(tile.s[0], _mm512_set1_ps(-kMagic)));
}

// What the accumulators of a block of n_rows rows start with: magic bits plus zero point. With one
// group per 32 columns both of a row's two places hold its sum.
template <class Fmt>
EDGE_INLINE void start_values(const int32_t* bias, int n_rows, int32_t* out) {
  for (int at = 0; at < 2 * n_rows; at += 16) {
    const int n = 2 * n_rows - at;
    const auto lanes = static_cast<__mmask16>(n >= 16 ? 0xFFFF : (1 << n) - 1);
    __m512i b = _mm512_maskz_loadu_epi32(lanes, bias + at);
    if constexpr (Fmt::kGroups == 1)
      b = _mm512_add_epi32(b, _mm512_shuffle_epi32(b, _MM_PERM_CDAB));
    if constexpr (Fmt::kZero == 128) b = _mm512_slli_epi32(b, 1);
    if constexpr (Fmt::kZero == 32) b = _mm512_srai_epi32(b, 1);
    _mm512_store_si512(out + at, _mm512_add_epi32(b, _mm512_set1_epi32(kMagicBits)));
  }
}

// sums[r][strip] += d[r] * x of one tile of kStrips strips, for all rows of a panel.
template <class Fmt, int kStrips>
EDGE_INLINE void add_tile(const GemmTile* const* tiles, const int8_t* q, const float* d,
                          const int32_t* start, int n_rows, float* sums) {
  __m512i w[kStrips][8];
  __m512 s[kStrips][Fmt::kGroups], minus_s_magic[kStrips];
  for (int p = 0; p < kStrips; ++p) {
    for (int t = 0; t < 8; ++t) w[p][t] = _mm512_load_si512(tiles[p]->w[t]);
    for (int g = 0; g < Fmt::kGroups; ++g) s[p][g] = _mm512_load_ps(tiles[p]->s[g]);
    minus_s_magic[p] = _mm512_load_ps(tiles[p]->minus_s_magic);
  }
  for (int r = 0; r < n_rows; ++r, q += kTileK, start += 2, sums += kStripPair * kTileRows) {
    __m512i acc[kStrips][Fmt::kGroups];
    for (int g = 0; g < Fmt::kGroups; ++g) {
      for (int p = 0; p < kStrips; ++p) acc[p][g] = _mm512_set1_epi32(start[g]);
    }
    for (int t = 0; t < 8; ++t) {
      int32_t quad;
      __builtin_memcpy(&quad, q + 4 * t, 4);
      const __m512i a = _mm512_set1_epi32(quad);
      for (int p = 0; p < kStrips; ++p) {
        __m512i& sum = acc[p][t * Fmt::kGroups / 8];
        sum = _mm512_dpbusd_epi32(sum, w[p][t], a);
      }
    }
    const __m512 scale = _mm512_set1_ps(d[r]);
    for (int p = 0; p < kStrips; ++p) {
      __m512 x = _mm512_fmadd_ps(_mm512_castsi512_ps(acc[p][0]), s[p][0], minus_s_magic[p]);
      if constexpr (Fmt::kGroups == 2) {
        const __m512 d1 = _mm512_sub_ps(_mm512_castsi512_ps(acc[p][1]), _mm512_set1_ps(kMagic));
        x = _mm512_fmadd_ps(d1, s[p][1], x);
      }
      float* sum = sums + p * kTileRows;
      _mm512_store_ps(sum, _mm512_fmadd_ps(x, scale, _mm512_load_ps(sum)));
    }
  }
}

// Rows [row0, row0 + n_rows) times kStrips strips; row0 is a multiple of 16.
template <class Fmt, int kStrips>
void strips_rows(const uint8_t* strips, size_t strip_size, const MatmulArgs& args, int row0,
                 int n_rows, float* y) {
  alignas(64) GemmTile tiles[kStrips][kBlockTiles];
  alignas(64) float sums[kMaxBlockRows * kStripPair * kTileRows];
  alignas(64) int32_t start[2 * kMaxKRows];
  const __m512 zero = _mm512_setzero_ps();
  for (int i = 0; i < n_rows * kStripPair; ++i) _mm512_store_ps(sums + i * kTileRows, zero);
  for (int64_t tile0 = 0; tile0 < args.n_tiles; tile0 += kBlockTiles) {
    const int64_t left = args.n_tiles - tile0;
    const int n_tiles = left < kBlockTiles ? static_cast<int>(left) : kBlockTiles;
    const uint8_t* packed =
        strips + kStripHeaderBytes + Fmt::kTileBytes * static_cast<size_t>(tile0);
    for (int p = 0; p < kStrips; ++p) {
      for (int i = 0; i < n_tiles; ++i) {
        unpack<Fmt>(
            packed + static_cast<size_t>(p) * strip_size + Fmt::kTileBytes * static_cast<size_t>(i),
            tiles[p][i]);
      }
    }
    for (int row = 0; row < n_rows; row += kMaxKRows) {
      const int rows = n_rows - row < kMaxKRows ? n_rows - row : kMaxKRows;
      const int64_t panel = (row0 + row) * args.n_tiles + tile0 * rows;
      // The next tiles come while these are used; one share per panel.
      const uint8_t* ahead = packed + kBlockTiles * Fmt::kTileBytes;
      for (int p = 0; p < kStrips; ++p) {
        for (int b = 64 * row / kMaxKRows; b < kBlockTiles * Fmt::kTileBytes;
             b += 64 * (n_rows + kMaxKRows - 1) / kMaxKRows) {
          _mm_prefetch(
              reinterpret_cast<const char*>(ahead) + static_cast<size_t>(p) * strip_size + b,
              _MM_HINT_T1);
        }
      }
      for (int i = 0; i < n_tiles; ++i) {
        const int64_t block = panel + i * rows;
        const GemmTile* pair[kStrips];
        for (int p = 0; p < kStrips; ++p) pair[p] = &tiles[p][i];
        start_values<Fmt>(args.bias + 2 * block, rows, start);
        add_tile<Fmt, kStrips>(pair, args.q + kTileK * block, args.d + block, start, rows,
                               sums + row * kStripPair * kTileRows);
      }
    }
  }
  for (int p = 0; p < kStrips; ++p) {
    const __m512 d_row = _mm512_loadu_ps(
        reinterpret_cast<const float*>(strips + static_cast<size_t>(p) * strip_size));
    for (int r = 0; r < n_rows; ++r) {
      const __m512 sum = _mm512_load_ps(sums + (r * kStripPair + p) * kTileRows);
      _mm512_storeu_ps(y + r * args.y_stride + p * kTileRows, _mm512_mul_ps(sum, d_row));
    }
  }
}

template <class Fmt>
EDGE_INLINE void gemm(const MatmulArgs& args) {
  const size_t strip_size = kStripHeaderBytes + Fmt::kTileBytes * static_cast<size_t>(args.n_tiles);
  for (int row0 = 0; row0 < args.n_rows; row0 += kMaxBlockRows) {
    const int n_rows = args.n_rows - row0 < kMaxBlockRows ? args.n_rows - row0 : kMaxBlockRows;
    float* y = args.y + row0 * args.y_stride;
    for (int64_t s = 0; s < args.n_strips; s += kStripPair) {
      const uint8_t* strips = args.strips + static_cast<size_t>(s) * strip_size;
      const auto run = s + 1 < args.n_strips ? strips_rows<Fmt, 2> : strips_rows<Fmt, 1>;
      run(strips, strip_size, args, row0, n_rows, y + s * kTileRows);
    }
  }
}

}  // namespace
}  // namespace edge
