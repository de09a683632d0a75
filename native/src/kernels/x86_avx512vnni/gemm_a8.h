// The integer matmul for many rows (prefill): the sums of matmul_a8.h, cache-blocked. Strips are
// unpacked a few tiles at a time into bytes that stay in L1 and serve every panel of rows.
//
// All vector arithmetic of this CPU shares two ports, a dot product takes 5 cycles, and a busy
// hyper-thread halves both the instructions that may start in a cycle and those that may wait. So
// 16 dot products run side by side (strips x rows x groups), a quad of activations is broadcast
// once for all strips, and sums wait in registers (two groups a block) or in L1 (one). Int to float
// takes no conversion: accumulators start at the bits of 1.5 * 2^23, so that read as floats they
// are M + D exactly (|D| < 2^22), and fma(s, M + D, -s*M) is s*D rounded once (s has 7 bits, as an
// f16 11, so s*M is exact).
#pragma once

#include <immintrin.h>

#include "base/inline.h"
#include "kernels/matmul_args.h"
#include "quant/tile_stream.h"
#include "quant/tiles.h"

namespace edge {
namespace {

constexpr int kUnpackedTiles = 16;  // at a time, of all strips: 11 KiB
constexpr int kMaxBlockRows = 128;  // of one pass over the weights
// Strips and rows side by side: more chains for the formats that have one group a block.
template <class Fmt>
constexpr int kBlockStrips = Fmt::kGroups == 2 ? 2 : 4;
// Formats with a zero point per row; the others have one for all and what sums start with is a
// number.
template <class Fmt>
constexpr bool kHasZeros = requires { &Fmt::template Unpacked<1>::zeros; };
// Formats whose rows have a minimum, an f32 that meets -sum(q).
template <class Fmt>
constexpr bool kHasMins = requires { &Fmt::template Unpacked<1>::mins; };
constexpr int32_t kMagicBits = 0x4B400000;
constexpr float kMagic = 0x1.8p23f;

struct alignas(64) GemmTile {
  uint8_t w[8][64];
  float s[2][kTileRows];           // group scales; the second: bits of i32 zeros, or minima
  float minus_s_magic[kTileRows];  // of the first group
};

template <class Fmt, class Packed>
EDGE_INLINE void unpack(Packed packed, GemmTile& out) {
  const typename Fmt::template Unpacked<kMaxKRows> tile(packed);
  for (int t = 0; t < 8; ++t) _mm512_store_si512(out.w[t], tile.w[t]);
  for (int g = 0; g < Fmt::kGroups; ++g) _mm512_store_ps(out.s[g], tile.s[g]);
  if constexpr (kHasZeros<Fmt>) _mm512_store_ps(out.s[1], _mm512_castsi512_ps(tile.zeros));
  if constexpr (kHasMins<Fmt>) _mm512_store_ps(out.s[1], tile.mins);
  _mm512_store_ps(out.minus_s_magic, _mm512_mul_ps(tile.s[0], _mm512_set1_ps(-kMagic)));
}

// What accumulators start with: magic bits plus zero point, for n pairs of group sums. With one
// group per 32 columns both places of a pair hold its sum. kHasZeros: -sum(q) of the 32 columns;
// kHasMins: the bits of that as f32.
template <class Fmt>
EDGE_INLINE void start_values(const int32_t* bias, int n, int32_t* out) {
  for (int at = 0; at < 2 * n; at += 16) {
    const int left = 2 * n - at;
    const auto lanes = static_cast<__mmask16>(left >= 16 ? 0xFFFF : (1 << left) - 1);
    __m512i b = _mm512_maskz_loadu_epi32(lanes, bias + at);
    if constexpr (Fmt::kGroups == 1) {
      b = _mm512_add_epi32(b, _mm512_shuffle_epi32(b, _MM_PERM_CDAB));
    }
    if constexpr (kHasZeros<Fmt>) {
      b = _mm512_srai_epi32(b, 6);
    } else if constexpr (kHasMins<Fmt>) {
      b = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_srai_epi32(b, 6)));
    } else {
      static_assert(Fmt::kZero == 64 || Fmt::kZero == 32 || Fmt::kZero == 128);
      if constexpr (Fmt::kZero == 128) b = _mm512_slli_epi32(b, 1);
      if constexpr (Fmt::kZero == 32) b = _mm512_srai_epi32(b, 1);
      b = _mm512_add_epi32(b, _mm512_set1_epi32(kMagicBits));
    }
    _mm512_store_si512(out + at, b);
  }
}

// What a block of tiles meets: rows of one panel, as in MatmulArgs but from the first tile on.
struct PanelBlock {
  const int8_t* q;       // [n_tiles][n_rows][32]
  const float* d;        // [n_tiles][n_rows]
  const int32_t* start;  // [n_tiles][n_rows][2]
  int64_t n_rows;
  int n_tiles;
};

EDGE_INLINE __m512i broadcast_quad(const int8_t* a) {
  int32_t quad;
  __builtin_memcpy(&quad, a, 4);
  return _mm512_set1_epi32(quad);
}

template <class Fmt>
using TileRow = GemmTile[kUnpackedTiles / kBlockStrips<Fmt>];  // of one strip

// sums[r][strip] += d[r] * x (docs/KERNELS.md) for a format of two groups: R rows and S strips meet
// all tiles of the block, and their sums wait in registers. A store takes longer than its issue
// slot while dot products keep both ports busy.
template <class Fmt, int S, int R>
EDGE_INLINE void add_block_of_rows(const TileRow<Fmt>* tiles, const PanelBlock& block, int64_t row,
                                   float* sums) {
  constexpr int kStride = kBlockStrips<Fmt> * kTileRows;
  const int8_t* q = block.q + kTileK * row;
  const float* d = block.d + row;
  const int32_t* start = block.start + 2 * row;
  sums += row * kStride;
  __m512 sum[S][R];
  for (int s = 0; s < S; ++s) {
    for (int r = 0; r < R; ++r) sum[s][r] = _mm512_load_ps(sums + r * kStride + s * kTileRows);
  }
  for (int i = 0; i < block.n_tiles; ++i) {
    __m512i acc[2][S][R];
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s < S; ++s) {
        acc[0][s][r] = _mm512_set1_epi32(start[2 * r]);
        acc[1][s][r] = _mm512_set1_epi32(start[2 * r + 1]);
      }
    }
    EDGE_UNROLL
    for (int t = 0; t < 8; ++t) {  // turn by turn, so that the groups' sums advance together
      const int g = t % 2, quad = 4 * g + t / 2;
      EDGE_UNROLL
      for (int r = 0; r < R; ++r) {
        const __m512i a = broadcast_quad(q + kTileK * r + 4 * quad);
        for (int s = 0; s < S; ++s) {
          const __m512i w = _mm512_load_si512(tiles[s][i].w[quad]);
          acc[g][s][r] = _mm512_dpbusd_epi32(acc[g][s][r], w, a);
        }
      }
    }
    for (int s = 0; s < S; ++s) {
      const GemmTile& tile = tiles[s][i];
      const __m512 s0 = _mm512_load_ps(tile.s[0]);
      const __m512 s1 = _mm512_load_ps(tile.s[1]);
      const __m512 minus_s_magic = _mm512_load_ps(tile.minus_s_magic);
      for (int r = 0; r < R; ++r) {
        const __m512 x = _mm512_fmadd_ps(_mm512_castsi512_ps(acc[0][s][r]), s0, minus_s_magic);
        const __m512 d1 = _mm512_sub_ps(_mm512_castsi512_ps(acc[1][s][r]), _mm512_set1_ps(kMagic));
        sum[s][r] = _mm512_fmadd_ps(_mm512_fmadd_ps(d1, s1, x), _mm512_set1_ps(d[r]), sum[s][r]);
      }
    }
    q += kTileK * block.n_rows;
    d += block.n_rows;
    start += 2 * block.n_rows;
  }
  for (int s = 0; s < S; ++s) {
    for (int r = 0; r < R; ++r) _mm512_store_ps(sums + r * kStride + s * kTileRows, sum[s][r]);
  }
}

template <class Fmt>
EDGE_INLINE __m512i start_of(int32_t start, const float* zeros) {
  if constexpr (kHasMins<Fmt>) return _mm512_set1_epi32(kMagicBits);
  const __m512i x = _mm512_set1_epi32(start);
  if constexpr (!kHasZeros<Fmt>) return x;
  // As i16 pairs: the upper halves of the zeros are 0.
  const __m512i z = _mm512_castps_si512(_mm512_load_ps(zeros));
  return _mm512_dpwssd_epi32(_mm512_set1_epi32(kMagicBits), x, z);
}

// x of docs/KERNELS.md for a format of one group. tile: loaded are s[0] and minus_s_magic.
template <class Fmt>
EDGE_INLINE __m512 block_value(__m512i acc, __m512 s0, __m512 minus_s_magic, const GemmTile& tile,
                               int32_t start) {
  if constexpr (kHasMins<Fmt>) {
    const __m512 minus_sum = _mm512_castsi512_ps(_mm512_set1_epi32(start));
    const __m512 d0 = _mm512_sub_ps(_mm512_castsi512_ps(acc), _mm512_set1_ps(kMagic));
    return _mm512_fmadd_ps(s0, d0, _mm512_mul_ps(_mm512_load_ps(tile.s[1]), minus_sum));
  } else {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(acc), s0, minus_s_magic);
  }
}

// The same for one tile and a format of one group: S strips and R rows side by side.
template <class Fmt, int S, int R>
EDGE_INLINE void add_rows(const TileRow<Fmt>* tiles, int i, const int8_t* q, const float* d,
                          const int32_t* start, float* sums) {
  __m512i acc[S][R];
  for (int r = 0; r < R; ++r) {
    for (int s = 0; s < S; ++s) acc[s][r] = start_of<Fmt>(start[2 * r], tiles[s][i].s[1]);
  }
  EDGE_UNROLL
  for (int t = 0; t < 8; ++t) {
    for (int r = 0; r < R; ++r) {
      const __m512i a = broadcast_quad(q + kTileK * r + 4 * t);
      for (int s = 0; s < S; ++s) {
        acc[s][r] = _mm512_dpbusd_epi32(acc[s][r], _mm512_load_si512(tiles[s][i].w[t]), a);
      }
    }
  }
  for (int s = 0; s < S; ++s) {
    const __m512 s0 = _mm512_load_ps(tiles[s][i].s[0]);
    const __m512 minus_s_magic = _mm512_load_ps(tiles[s][i].minus_s_magic);
    for (int r = 0; r < R; ++r) {
      const __m512 x = block_value<Fmt>(acc[s][r], s0, minus_s_magic, tiles[s][i], start[2 * r]);
      float* sum = sums + (r * kBlockStrips<Fmt> + s) * kTileRows;
      _mm512_store_ps(sum, _mm512_fmadd_ps(x, _mm512_set1_ps(d[r]), _mm512_load_ps(sum)));
    }
  }
}

// The tiles of a block of S strips times a panel.
template <class Fmt, int S>
EDGE_INLINE void add_panel(const TileRow<Fmt>* tiles, const PanelBlock& block, float* sums) {
  if constexpr (Fmt::kGroups == 2) {
    int64_t row = 0;
    for (; row + 4 <= block.n_rows; row += 4) add_block_of_rows<Fmt, S, 4>(tiles, block, row, sums);
    for (; row < block.n_rows; ++row) add_block_of_rows<Fmt, S, 1>(tiles, block, row, sums);
    return;
  }
  constexpr int R = kBlockStrips<Fmt>;
  const int8_t* q = block.q;
  const float* d = block.d;
  const int32_t* start = block.start;
  for (int i = 0; i < block.n_tiles; ++i) {
    float* sum = sums;
    const auto next = [&](int n_rows) {
      q += kTileK * n_rows;
      d += n_rows;
      start += 2 * n_rows;
      sum += n_rows * kBlockStrips<Fmt> * kTileRows;
    };
    int row = 0;
    for (; row + R <= block.n_rows; row += R, next(R)) {
      add_rows<Fmt, S, R>(tiles, i, q, d, start, sum);
    }
    for (; row < block.n_rows; ++row, next(1)) add_rows<Fmt, S, 1>(tiles, i, q, d, start, sum);
  }
}

// Up to kMaxBlockRows rows times S strips. Lives on the stack: up to 45 KiB.
template <class Fmt, int S>
class GemmBlock {
 public:
  // row0 is a multiple of kMaxKRows.
  EDGE_MEMBER_INLINE GemmBlock(const MatmulArgs& args, const uint8_t* strips, int row0, int n_rows)
      : args_(args), strips_(strips), row0_(row0), n_rows_(n_rows) {}

  void run(float* y) {
    const __m512 zero = _mm512_setzero_ps();
    for (int i = 0; i < n_rows_ * kWidth; ++i) _mm512_store_ps(sums_ + i * kTileRows, zero);
    for (int64_t tile0 = 0; tile0 < args_.n_tiles; tile0 += kBlockTiles) add_tiles(tile0);
    for (int s = 0; s < S; ++s) {
      const __m512 d_row = _mm512_loadu_ps(reinterpret_cast<const float*>(strip(s)));
      for (int r = 0; r < n_rows_; ++r) {
        const __m512 sum = _mm512_load_ps(sums_ + (r * kWidth + s) * kTileRows);
        _mm512_storeu_ps(y + r * args_.y_stride + s * kTileRows, _mm512_mul_ps(sum, d_row));
      }
    }
  }

 private:
  static constexpr int kWidth = kBlockStrips<Fmt>;
  static constexpr int kBlockTiles = kUnpackedTiles / kWidth;

  const uint8_t* strip(int s) const {
    return strips_ + static_cast<size_t>(s) * strip_bytes_of<Fmt>(Fmt::kTileBytes, args_.n_tiles);
  }
  const uint8_t* tile_address(int s, int64_t tile) const {
    return strip(s) + tiles_offset_of<Fmt>(args_.n_tiles) +
           Fmt::kTileBytes * static_cast<size_t>(tile);
  }

  void add_tiles(int64_t tile0) {
    const int64_t left = args_.n_tiles - tile0;
    const int n_tiles = left < kBlockTiles ? static_cast<int>(left) : kBlockTiles;
    for (int s = 0; s < S; ++s) {
      for (int i = 0; i < n_tiles; ++i) {
        const uint8_t* address = tile_address(s, tile0 + i);
        unpack<Fmt>(packed_tile<Fmt>(strip(s), address, tile0 + i), tiles_[s][i]);
      }
    }
    for (int row = 0; row < n_rows_; row += kMaxKRows) {
      const int rows = n_rows_ - row < kMaxKRows ? n_rows_ - row : kMaxKRows;
      const int64_t at = (row0_ + row) * args_.n_tiles + tile0 * rows;
      prefetch_share(tile0, row / kMaxKRows);
      start_values<Fmt>(args_.bias + 2 * at, n_tiles * rows, start_);
      const PanelBlock block{args_.q + kTileK * at, args_.d + at, start_, rows, n_tiles};
      add_panel<Fmt, S>(tiles_, block, sums_ + row * kWidth * kTileRows);
    }
  }

  // The next block's bytes come to L2 while this one is used; a share of them with every panel.
  void prefetch_share(int64_t tile0, int panel) const {
    constexpr int kBytes = kBlockTiles * Fmt::kTileBytes;
    const int n_panels = (n_rows_ + kMaxKRows - 1) / kMaxKRows;
    for (int s = 0; s < S; ++s) {
      const uint8_t* next = tile_address(s, tile0 + kBlockTiles);
      for (int b = 64 * panel; b < kBytes; b += 64 * n_panels) {
        _mm_prefetch(reinterpret_cast<const char*>(next) + b, _MM_HINT_T1);
      }
    }
  }

  const MatmulArgs& args_;
  const uint8_t* strips_;
  int row0_;
  int n_rows_;
  alignas(64) TileRow<Fmt> tiles_[S];
  alignas(64) float sums_[kMaxBlockRows * kWidth * kTileRows];
  alignas(64) int32_t start_[2 * kMaxKRows * kBlockTiles];
};

template <class Fmt, int S>
void gemm_strips(const MatmulArgs& args, int64_t strip0, int row0, int n_rows) {
  const size_t strip_size = strip_bytes_of<Fmt>(Fmt::kTileBytes, args.n_tiles);
  const uint8_t* strips = args.strips + static_cast<size_t>(strip0) * strip_size;
  GemmBlock<Fmt, S> block(args, strips, row0, n_rows);
  block.run(args.y + row0 * args.y_stride + strip0 * kTileRows);
}

template <class Fmt>
EDGE_INLINE void gemm(const MatmulArgs& args) {
  constexpr int kWidth = kBlockStrips<Fmt>;
  for (int row0 = 0; row0 < args.n_rows; row0 += kMaxBlockRows) {
    const int n_rows = args.n_rows - row0 < kMaxBlockRows ? args.n_rows - row0 : kMaxBlockRows;
    int64_t s = 0;
    for (; s + kWidth <= args.n_strips; s += kWidth) {
      gemm_strips<Fmt, kWidth>(args, s, row0, n_rows);
    }
    for (; s < args.n_strips; ++s) gemm_strips<Fmt, 1>(args, s, row0, n_rows);
  }
}

}  // namespace
}  // namespace edge
