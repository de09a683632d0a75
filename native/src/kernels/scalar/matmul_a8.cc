// The definition of the integer matmuls. Every other ISA must equal it bit for bit.
#include "base/fma.h"
#include "kernels/matmul_args.h"
#include "quant/tile_weights.h"

namespace edge {
namespace {

// One block of 32 columns: x of docs/KERNELS.md.
template <class Tile>
inline int32_t dot(const Tile& tile, int row, const int8_t* a, int k0, int k1) {
  int32_t sum = 0;
  for (int k = k0; k < k1; ++k) sum += tile_weight(tile, row, k) * a[k];
  return sum;
}
// Groups of 16: s0*D0 + s1*D1 is an exact int32 (|s*D| < 2^24).
template <class Tile>
inline float block_sum_16(const Tile& tile, int row, const int8_t* a) {
  const int32_t x = tile_scale(tile, row, 0) * dot(tile, row, a, 0, 16) +
                    tile_scale(tile, row, 16) * dot(tile, row, a, 16, 32);
  return static_cast<float>(x);
}
// Groups of 32: the product is rounded once.
template <class Tile>
inline float block_sum_32(const Tile& tile, int row, const int8_t* a) {
  return static_cast<float>(tile_scale(tile, row, 0)) *
         static_cast<float>(dot(tile, row, a, 0, 32));
}
inline float block_sum(const TileE2_16& tile, int row, const int8_t* a) {
  return block_sum_16(tile, row, a);
}
inline float block_sum(const TileE3_32& tile, int row, const int8_t* a) {
  return block_sum_32(tile, row, a);
}
inline float block_sum(const TileE4_16& tile, int row, const int8_t* a) {
  return block_sum_16(tile, row, a);
}
inline float block_sum(const TileE6_16& tile, int row, const int8_t* a) {
  return block_sum_16(tile, row, a);
}
inline float block_sum(const TileE4_32& tile, int row, const int8_t* a) {
  return block_sum_32(tile, row, a);
}
inline float block_sum(const TileE8_32& tile, int row, const int8_t* a) {
  return block_sum_32(tile, row, a);
}
// The scale has 11 bits and the integer 21 (L8_32: 19); the product is rounded once.
inline float block_sum(const TileL4_32& tile, int row, const int8_t* a) {
  return half_to_float(tile.s[row]) * static_cast<float>(dot(tile, row, a, 0, 32));
}
inline float block_sum(const TileL8_32& tile, int row, const int8_t* a) {
  return half_to_float(tile.s[row]) * static_cast<float>(dot(tile, row, a, 0, 32));
}
// The product of the minimum is rounded; then one fma. D has 16 bits, the scale 19.
inline float block_sum(const ViewK4_32& view, int row, const int8_t* a) {
  int32_t dot = 0;
  int32_t sum = 0;
  for (int k = 0; k < kTileK; ++k) {
    dot += tile_nibble(view.tile.nibbles, row, k) * a[k];
    sum += a[k];
  }
  const float p = group_min(view, row) * static_cast<float>(-sum);
  return fma_exact(group_scale(view, row), static_cast<float>(dot), p);
}

template <class Tile>
void matmul(const MatmulArgs& args) {
  const size_t strip_size = strip_bytes_of<Tile>(sizeof(Tile), args.n_tiles);
  for (int64_t s = 0; s < args.n_strips; ++s) {
    const uint8_t* strip = args.strips + static_cast<size_t>(s) * strip_size;
    const float* d_row = reinterpret_cast<const float*>(strip);
    const uint8_t* tiles = strip + tiles_offset_of<Tile>(args.n_tiles);
    for (int r = 0; r < args.n_rows; ++r) {
      for (int row = 0; row < kTileRows; ++row) {
        float f = 0;
        for (int64_t i = 0; i < args.n_tiles; ++i) {
          const int64_t block = i * args.n_rows + r;
          const auto& tile = tile_view<Tile>(
              packed_tile<Tile>(strip, tiles + sizeof(Tile) * static_cast<size_t>(i), i));
          f = fma_exact(block_sum(tile, row, args.q + 32 * block), args.d[block], f);
        }
        args.y[r * args.y_stride + s * kTileRows + row] = f * d_row[row];
      }
    }
  }
}

}  // namespace

void matmul_e2_16_a8_scalar(const MatmulArgs& args) { matmul<TileE2_16>(args); }
void matmul_e3_32_a8_scalar(const MatmulArgs& args) { matmul<TileE3_32>(args); }
void matmul_e4_16_a8_scalar(const MatmulArgs& args) { matmul<TileE4_16>(args); }
void matmul_e4_32_a8_scalar(const MatmulArgs& args) { matmul<TileE4_32>(args); }
void matmul_e6_16_a8_scalar(const MatmulArgs& args) { matmul<TileE6_16>(args); }
void matmul_e8_32_a8_scalar(const MatmulArgs& args) { matmul<TileE8_32>(args); }
void matmul_k4_32_a8_scalar(const MatmulArgs& args) { matmul<TileK4_32>(args); }
void matmul_l4_32_a8_scalar(const MatmulArgs& args) { matmul<TileL4_32>(args); }
void matmul_l8_32_a8_scalar(const MatmulArgs& args) { matmul<TileL8_32>(args); }

}  // namespace edge
