// Products of weights in tiles with many rows of activations, on tensor cores.
//
// The sums are those of gpu/matmul.inl.h: a tile's integer sums are exact in any order, so a tensor
// core may make them, and each thread adds what a tile gives to its outputs, tile by tile, with the
// CPU's one fma. So y has the same bits.
//
// A group makes kStrips strips times kRows rows of activations, kGemmTiles tiles at a time: while
// those are multiplied, the next are copied to shared memory beside it. A thread unpacks one row of
// one tile to int8, less its zero point where a byte can hold that; a warp multiplies one strip
// with half of the rows. Rows of 32 bytes stand in shared memory with their halves swapped in every
// second four, so that eight of them are read at once from different banks.
#include "backends/cuda/ptx.h"
#include "backends/gpu/act_blocks.inl.h"
#include "backends/gpu/weight_tiles.inl.h"

namespace EDGE_DEVICE {

// Of a multiprocessor, at least: with so many, a thread may have 128 registers.
constexpr int kThreadsAtOnce = 512;

// Sums that start here, 1.5 * 2^23, are as bits of a float that much more than as integers: what is
// below 2^22 becomes a float by one subtraction.
constexpr int kSumStart = 0x4b400000;
EDGE_FN float float_of_sum(int sum) { return float_of(sum) - 12582912.0f; }

// What a row of a tile has beside its int8 weights.
struct Factors {
  float a, b;
};

// Bytes less `zero`, both at most 127.
EDGE_FN uint32_t less_zero(uint32_t bytes, int zero) {
  return ((bytes | 0x80808080u) - 0x01010101u * static_cast<uint32_t>(zero)) ^ 0x80808080u;
}

// How a format's integer sums become x, the bits of its Row::sum(). take() makes what is
// multiplied; n_rest: minus the sum of the activations.
struct ByHalves {
  static constexpr bool kHasHalves = true, kHasRest = false;
  static __device__ Factors take(RowBy16& row) {
    EDGE_UNROLL
    for (int i = 0; i < 8; ++i) row.quads[i] = less_zero(row.quads[i], row.zero[i / 4]);
    return {static_cast<float>(row.scale[0]), static_cast<float>(row.scale[1])};
  }
  // Both products are below 2^24.
  static __device__ float x(int low, int high, Factors scale, float) {
    return fma_exact(scale.b, float_of_sum(high), scale.a * float_of_sum(low));
  }
};
struct Whole {
  static constexpr bool kHasHalves = false, kHasRest = false;
  static __device__ Factors take(const RowBy32& row) { return {row.scale, 0}; }
  static __device__ float x(int sum, int, Factors scale, float) {
    return scale.a * float_of_sum(sum);
  }
};
struct WholeLessZero : Whole {
  static __device__ Factors take(RowBy32& row) {
    EDGE_UNROLL
    for (int i = 0; i < 8; ++i) row.quads[i] = less_zero(row.quads[i], row.zero);
    return {row.scale, 0};
  }
};
// Of a zero point up to 255.
struct ByZero {
  static constexpr bool kHasHalves = false, kHasRest = true;
  static __device__ Factors take(const RowBy32& row) {
    return {row.scale, static_cast<float>(row.zero)};
  }
  static __device__ float x(int sum, int, Factors by, float n_rest) {
    return by.a * fma_exact(by.b, n_rest, float_of_sum(sum));
  }
};
struct ByMinimum {
  static constexpr bool kHasHalves = false, kHasRest = true;
  static __device__ Factors take(const RowK4& row) { return {row.scale, row.minimum}; }
  static __device__ float x(int sum, int, Factors by, float n_rest) {
    return fma_exact(by.a, float_of_sum(sum), by.b * n_rest);
  }
};

template <class F>
struct Product;
template <>
struct Product<E2_16> : ByHalves {};
template <>
struct Product<E3_32> : WholeLessZero {};
template <>
struct Product<E4_16> : ByHalves {};
template <>
struct Product<E4_32> : WholeLessZero {};
template <>
struct Product<E6_16> : ByHalves {};
template <>
struct Product<E8_32> : Whole {};
template <>
struct Product<K4_32> : ByMinimum {};
template <>
struct Product<L4_32> : ByZero {};
template <>
struct Product<L8_32> : Whole {};

// What is copied for kGemmTiles tiles.
template <class F, int kRows, int kStrips>
struct Stage {
  static constexpr int kChunks = sizeof(typename F::Tile) / 16;
  static_assert(16 * kChunks == sizeof(typename F::Tile));
  int4 tiles[kStrips][kGemmTiles][kChunks];
  int4 acts[kGemmTiles][kRows][2];
  int64_t bias[kGemmTiles][Product<F>::kHasRest ? kRows : 1];  // two int32
  float scale[kGemmTiles][kRows];
};

// Where half `half` of row `row` of 32 bytes stands.
EDGE_FN int chunk_of(int row, int half) { return half ^ (row >> 2 & 1); }

EDGE_FN float n_rest_of(int64_t bias) {  // -64 times the sums of both halves
  int halves[2];
  memcpy(halves, &bias, sizeof halves);
  return static_cast<float>((halves[0] >> 6) + (halves[1] >> 6));
}

// What is unpacked of a stage.
template <int kStrips>
struct Unpacked {
  int4 weights[kStrips][kGemmTiles][kTileRows][2];
  Factors factors[kStrips][kGemmTiles][kTileRows];
};

// A thread of a group, which makes strips from strip0 on for rows from row0 on. Its outputs are
// those of a lane of multiply_add(), for each 8 rows.
template <class F, int kRows, int kStrips>
struct Gemm {
  using P = Product<F>;
  using Copied = Stage<F, kRows, kStrips>;
  static constexpr int kThreads = kGemmStripThreads * kStrips;
  static constexpr int kParts = kRows / 16;  // of 8 rows, of a warp

  const MatmulArgs& args;
  int thread;
  int64_t strip0, row0;
  float f[kParts][4];

  __device__ int lane() const { return thread % kWarp; }
  __device__ int strip() const { return thread / kWarp / 2; }
  __device__ int row_of_part(int part) const { return thread / kWarp % 2 * (kRows / 2) + 8 * part; }
  __device__ int n_tiles_from(int64_t tile) const {
    const int64_t left = args.w.n_tiles - tile;
    return left < kGemmTiles ? static_cast<int>(left) : kGemmTiles;
  }
  // The last one again where there are no more: nobody stores what that gives.
  __device__ const uint8_t* strip_at(int number) const {
    const int64_t last = args.n_strips - 1 - strip0;
    return strip_of(args.w, strip0 + (number < last ? number : last));
  }

  __device__ void copy_tiles(int64_t tile0, int n_tiles, Copied& to) const {
    constexpr int kChunks = Copied::kChunks;
    for (int i = thread; i < kStrips * kGemmTiles * kChunks; i += kThreads) {
      const int number = i / (kGemmTiles * kChunks), tile = i / kChunks % kGemmTiles;
      if (tile >= n_tiles) continue;
      const uint8_t* from = strip_at(number) + args.w.tiles_offset +
                            static_cast<int64_t>(sizeof(typename F::Tile)) * (tile0 + tile);
      copy_async<16>(&to.tiles[number][tile][i % kChunks], from + 16 * (i % kChunks));
    }
  }
  __device__ void copy_acts(int64_t tile0, int n_tiles, Copied& to) const {
    for (int i = thread; i < 2 * n_tiles * kRows; i += kThreads) {
      const int tile = i / (2 * kRows), row = i / 2 % kRows, half = i % 2;
      int4& chunk = to.acts[tile][row][chunk_of(row, half)];
      const bool is_there = row0 + row < args.act.n_rows;
      if (!is_there) {
        chunk = {0, 0, 0, 0};
      } else {
        const int64_t block = block_index(args.act, row0 + row, tile0 + tile);
        copy_async<16>(&chunk, args.act.q + kBlockCols * block + 16 * half);
      }
    }
  }
  __device__ void copy_scales(int64_t tile0, int n_tiles, Copied& to) const {
    for (int i = thread; i < n_tiles * kRows; i += kThreads) {
      const int tile = i / kRows, row = i % kRows;
      const bool is_there = row0 + row < args.act.n_rows;
      if (!is_there) {
        to.scale[tile][row] = 0;
        if constexpr (P::kHasRest) to.bias[tile][row] = 0;
      } else {
        const int64_t block = block_index(args.act, row0 + row, tile0 + tile);
        copy_async<4>(&to.scale[tile][row], args.act.d + block);
        if constexpr (P::kHasRest) copy_async<8>(&to.bias[tile][row], args.act.bias + 2 * block);
      }
    }
  }
  __device__ void copy(int64_t tile0, Copied& to) const {
    const int n_tiles = n_tiles_from(tile0);
    copy_tiles(tile0, n_tiles, to);
    copy_acts(tile0, n_tiles, to);
    copy_scales(tile0, n_tiles, to);
  }

  __device__ void unpack(int64_t tile0, int n_tiles, const Copied& from,
                         Unpacked<kStrips>& to) const {
    const int row = thread % kTileRows, tile = thread / kTileRows % kGemmTiles;
    const int number = thread / kGemmStripThreads;
    if (tile >= n_tiles) return;
    const uint8_t* head = strip_at(number) + kStripHeaderBytes +
                          sizeof(HeadK4_32) * static_cast<size_t>((tile0 + tile) / kHeadTiles);
    typename F::Row unpacked =
        F::row_of(reinterpret_cast<const uint8_t*>(from.tiles[number][tile]), head, row);
    to.factors[number][tile][row] = P::take(unpacked);
    memcpy(&to.weights[number][tile][row][chunk_of(row, 0)], unpacked.quads, 16);
    memcpy(&to.weights[number][tile][row][chunk_of(row, 1)], unpacked.quads + 4, 16);
  }

  __device__ void multiply_tile(int tile, const Copied& from, const Unpacked<kStrips>& unpacked) {
    const int row = lane() % kTileRows;
    uint32_t a[4];
    load_matrices(a, &unpacked.weights[strip()][tile][row][chunk_of(row, lane() / 16)]);
    const Factors* factors = unpacked.factors[strip()][tile];
    const Factors by[2] = {factors[lane() / 4], factors[lane() / 4 + 8]};
    EDGE_UNROLL
    for (int part = 0; part < kParts; ++part) {
      uint32_t b[2];
      const int act_row = row_of_part(part) + lane() % 8;
      load_matrices(b, &from.acts[tile][act_row][chunk_of(act_row, lane() / 8 % 2)]);
      int low[4], high[4] = {};
      if constexpr (P::kHasHalves) {
        multiply_add(low, {a[0], a[1]}, b[0], kSumStart);
        multiply_add(high, {a[2], a[3]}, b[1], kSumStart);
      } else {
        multiply_add(low, a, b, kSumStart);
      }
      EDGE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int col = row_of_part(part) + lane() % 4 * 2 + i % 2;
        const float n_rest = P::kHasRest ? n_rest_of(from.bias[tile][P::kHasRest ? col : 0]) : 0;
        const float x = P::x(low[i], high[i], by[i / 2], n_rest);
        f[part][i] = fma_exact(x, from.scale[tile][col], f[part][i]);
      }
    }
  }

  __device__ void store() const {
    if (strip0 + strip() >= args.n_strips) return;
    const float* d_rows = reinterpret_cast<const float*>(strip_at(strip()));
    EDGE_UNROLL
    for (int part = 0; part < kParts; ++part) {
      EDGE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int64_t act_row = row0 + row_of_part(part) + lane() % 4 * 2 + i % 2;
        const int row = lane() / 4 + i / 2 * 8;
        if (act_row >= args.act.n_rows) continue;
        args.y[act_row * args.stride + kTileRows * (strip0 + strip()) + row] =
            f[part][i] * d_rows[row];
      }
    }
  }
};

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

template <class F, int kRows, int kStrips>
static __global__ void __launch_bounds__(kGemmStripThreads* kStrips,
                                         kThreadsAtOnce / (kGemmStripThreads * kStrips))
    gemm_a8(const MatmulArgs args) {
  const At at = EDGE_AT;
  using Copied = Stage<F, kRows, kStrips>;
  using Taken = Unpacked<kStrips>;
  EDGE_SHARED(Copied, stages, [2]);
  EDGE_SHARED(Taken, unpacked, [1]);
  Gemm<F, kRows, kStrips> group = {
      args, at.index, int64_t{at.y} * kStrips, int64_t{at.x} * kRows, {}};
  group.copy(0, stages[0]);
  int number = 0;
  for (int64_t tile0 = 0; tile0 < args.w.n_tiles; tile0 += kGemmTiles, number ^= 1) {
    const int n_tiles = group.n_tiles_from(tile0);
    wait_for_copies();
    EDGE_SYNC();
    const int64_t next = tile0 + kGemmTiles;
    if (next < args.w.n_tiles) group.copy(next, stages[number ^ 1]);
    group.unpack(tile0, n_tiles, stages[number], unpacked[0]);
    EDGE_SYNC();
    for (int tile = 0; tile < n_tiles; ++tile) {
      group.multiply_tile(tile, stages[number], unpacked[0]);
    }
  }
  group.store();
}

#define EDGE_EXPORT_GEMM(F)                           \
  EDGE_EXPORT_AS("gemm_a8_16_" #F, gemm_a8, F, 16, 2) \
  EDGE_EXPORT_AS("gemm_a8_32_" #F, gemm_a8, F, 32, 2) \
  EDGE_EXPORT_AS("gemm_a8_64_" #F, gemm_a8, F, 64, 4)
EDGE_INTEGER_FORMATS(EDGE_EXPORT_GEMM)
