// A group of threads that multiplies strips of weights with many rows of activations on tensor
// cores: what it copies, when it waits, and where its sums go.
//
// It makes kStrips strips times kRows rows, kGemmTiles tiles at a time: while those are multiplied,
// the next are copied to shared memory beside it. A thread unpacks one row of one tile to 32 bytes,
// a warp multiplies one strip with half of the rows. Rows of 32 bytes stand in shared memory with
// their halves swapped in every second four, so that eight of them are read at once from different
// banks.
//
// Two things are a template's to choose. Which rows are multiplied with which matrix is a Work's
// (MatrixWork). How is a Way's: unpack() makes a row's 32 bytes and what else must be known of
// them, and multiply() adds to a thread's sums what a stage gives (gemm_int8.h, gemm_fp8.cu).
#pragma once

#include "backends/cuda/ptx.h"
#include "backends/gpu/act_blocks.inl.h"
#include "backends/gpu/weight_tiles.inl.h"

namespace EDGE_DEVICE {

// Of a multiprocessor, at least: with so many, a thread may have 128 registers.
constexpr int kThreadsAtOnce = 512;

// Rows [row0, ..) of a call, with a matrix.
struct MatrixWork {
  const MatmulArgs& args;
  int64_t row0;

  __device__ const Matrix& matrix() const { return args.w; }
  __device__ const Panels& act() const { return args.act; }
  __device__ int64_t n_strips() const { return args.n_strips; }
  __device__ const uint8_t* strip(int64_t number) const { return strip_of(args.w, number); }
  __device__ bool has(int row) const { return row0 + row < args.act.n_rows; }
  __device__ int64_t act_row(int row) const { return row0 + row; }
  __device__ float* out(int row) const { return args.y + (row0 + row) * args.stride; }
};

// What is copied for kGemmTiles tiles.
template <class Way, int kRows, int kStrips>
struct Stage {
  using Tile = typename Way::Format::Tile;
  static constexpr int kChunks = sizeof(Tile) / 16;
  static_assert(16 * kChunks == sizeof(Tile));
  int4 tiles[kStrips][kGemmTiles][kChunks];
  int4 acts[kGemmTiles][kRows][2];
  int64_t bias[kGemmTiles][Way::kHasRest ? kRows : 1];  // two int32
  float scale[Way::kScales][kRows];
};

// What is unpacked of a stage.
template <class Way, int kStrips>
struct Unpacked {
  int4 weights[kStrips][kGemmTiles][kTileRows][2];
  typename Way::Factors factors[kStrips][kGemmTiles][kTileRows];
};

// Where half `half` of row `row` of 32 bytes stands.
EDGE_FN int chunk_of(int row, int half) { return half ^ (row >> 2 & 1); }

// The tiles of a strip that are in a stage, and what stands before them.
struct StagedTiles {
  const uint8_t* tiles;
  const uint8_t* head;  // of all of them
  int n;

  template <class F>
  __device__ typename F::Row row_of(int tile, int row) const {
    return F::row_of(tiles + sizeof(typename F::Tile) * static_cast<size_t>(tile), head, row);
  }
};
static_assert(kHeadTiles % kGemmTiles == 0);

// A thread of a group, which makes strips from strip0 on. Its sums are those of a lane of
// multiply_add(), for each 8 rows.
template <class Way, class Work, int kRows, int kStrips>
struct Group {
  using F = typename Way::Format;
  using Copied = Stage<Way, kRows, kStrips>;
  using Taken = Unpacked<Way, kStrips>;
  static constexpr int kThreads = kGemmStripThreads * kStrips;
  static constexpr int kParts = kRows / 16;  // of 8 rows, of a warp
  // A thread copies a half of a row's block, of so many rows and so many tiles.
  static constexpr int kTilesAtOnce = kThreads > 2 * kRows ? kThreads / (2 * kRows) : 1;
  static constexpr int kOwnTiles = kGemmTiles / kTilesAtOnce;
  static constexpr int kOwnRows = 2 * kRows > kThreads ? 2 * kRows / kThreads : 1;
  static_assert(kOwnTiles * kOwnRows * kThreads == 2 * kGemmTiles * kRows);

  const Work& work;
  int thread;
  int64_t strip0;
  const uint8_t* own_strip;  // of which it copies and unpacks
  RowBlocks own[kOwnRows];
  float f[kParts][4];

  __device__ Group(const Work& of, int index, int64_t first)
      : work(of),
        thread(index),
        strip0(first),
        own_strip(strip_at(index / kGemmStripThreads)),
        f{} {
    EDGE_UNROLL
    for (int i = 0; i < kOwnRows; ++i) {
      if (work.has(own_row(i))) own[i] = blocks_of(work.act(), work.act_row(own_row(i)));
    }
  }

  __device__ int lane() const { return thread % kWarp; }
  __device__ int strip() const { return thread / kWarp / 2; }
  __device__ int row_of_part(int part) const { return thread / kWarp % 2 * (kRows / 2) + 8 * part; }
  __device__ int own_row(int i) const { return thread / 2 % kRows + i * (kThreads / 2); }
  __device__ int own_tile(int i) const { return thread / 2 / kRows + i * kTilesAtOnce; }
  __device__ int n_tiles_from(int64_t tile) const {
    const int64_t left = work.matrix().n_tiles - tile;
    return left < kGemmTiles ? static_cast<int>(left) : kGemmTiles;
  }
  // The last one again where there are no more: nobody stores what that gives.
  __device__ const uint8_t* strip_at(int number) const {
    const int64_t last = work.n_strips() - 1 - strip0;
    return work.strip(strip0 + (number < last ? number : last));
  }

  // Of rows that are not there, which nobody copies.
  __device__ void clear_rows(Copied& to) const {
    for (int i = thread; i < kRows; i += kThreads) {
      if (work.has(i)) continue;
      for (int tile = 0; tile < kGemmTiles; ++tile) {
        to.acts[tile][i][0] = to.acts[tile][i][1] = {0, 0, 0, 0};
        if constexpr (Way::kHasRest) to.bias[tile][i] = 0;
      }
      for (int tile = 0; tile < Way::kScales; ++tile) to.scale[tile][i] = 0;
    }
  }
  // A strip's tiles follow each other.
  __device__ void copy_tiles(int64_t tile0, int n_tiles, Copied& to) const {
    constexpr int kChunks = Copied::kChunks;
    const int number = thread / kGemmStripThreads;
    const uint8_t* from = own_strip + work.matrix().tiles_offset +
                          static_cast<int64_t>(sizeof(typename F::Tile)) * tile0;
    EDGE_UNROLL
    for (int first = 0; first < kGemmTiles * kChunks; first += kGemmStripThreads) {
      const int i = first + thread % kGemmStripThreads;
      if (i < n_tiles * kChunks) copy_async<16>(to.tiles[number][0] + i, from + 16 * i);
    }
  }
  // Activations, and with one half of a block its scale, with the other its sums.
  __device__ void copy_acts(int64_t tile0, int n_tiles, Copied& to) const {
    const int half = thread % 2;
    EDGE_UNROLL
    for (int i = 0; i < kOwnRows; ++i) {
      const int row = own_row(i);
      if (!work.has(row)) continue;
      EDGE_UNROLL
      for (int j = 0; j < kOwnTiles; ++j) {
        const int tile = own_tile(j);
        if (tile >= n_tiles) continue;
        const int64_t block = own[i].at(tile0 + tile);
        copy_async<16>(&to.acts[tile][row][chunk_of(row, half)],
                       work.act().q + kBlockCols * block + 16 * half);
        if (half == 0 && tile < Way::kScales) {
          copy_async<4>(&to.scale[tile][row], work.act().d + block);
        }
        if constexpr (Way::kHasRest) {
          if (half == 1) copy_async<8>(&to.bias[tile][row], work.act().bias + 2 * block);
        }
      }
    }
  }
  __device__ void copy(int64_t tile0, Copied& to) const {
    const int n_tiles = n_tiles_from(tile0);
    copy_tiles(tile0, n_tiles, to);
    copy_acts(tile0, n_tiles, to);
  }

  __device__ void unpack(int64_t tile0, int n_tiles, const Copied& from, Taken& to) const {
    const int row = thread % kTileRows, tile = thread / kTileRows % kGemmTiles;
    const int number = thread / kGemmStripThreads;
    if (tile >= n_tiles) return;
    const uint8_t* head =
        own_strip + kStripHeaderBytes + sizeof(HeadK4_32) * static_cast<size_t>(tile0 / kHeadTiles);
    uint32_t quads[8];
    to.factors[number][tile][row] = Way::unpack(
        {reinterpret_cast<const uint8_t*>(from.tiles[number]), head, n_tiles}, tile, row, quads);
    memcpy(&to.weights[number][tile][row][chunk_of(row, 0)], quads, 16);
    memcpy(&to.weights[number][tile][row][chunk_of(row, 1)], quads + 4, 16);
  }

  // Fragments for multiply_add(): of this warp's strip, and of 8 rows of activations.
  __device__ void load_weights(uint32_t (&to)[4], int tile, const Taken& from) const {
    const int row = lane() % kTileRows;
    load_matrices(to, &from.weights[strip()][tile][row][chunk_of(row, lane() / 16)]);
  }
  __device__ void load_acts(uint32_t (&to)[2], int tile, int part, const Copied& from) const {
    const int row = row_of_part(part) + lane() % 8;
    load_matrices(to, &from.acts[tile][row][chunk_of(row, lane() / 8 % 2)]);
  }
  // Which of the rows a thread's sums f[part][i] are of: of the strip's, and of the activations'.
  __device__ int row_of_sum(int i) const { return lane() / 4 + i / 2 * 8; }
  __device__ int col_of_sum(int part, int i) const {
    return row_of_part(part) + lane() % 4 * 2 + i % 2;
  }

  __device__ void store() const {
    if (strip0 + strip() >= work.n_strips()) return;
    const float* d_rows = reinterpret_cast<const float*>(strip_at(strip()));
    EDGE_UNROLL
    for (int part = 0; part < kParts; ++part) {
      EDGE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int col = col_of_sum(part, i), row = row_of_sum(i);
        if (!work.has(col)) continue;
        work.out(col)[kTileRows * (strip0 + strip()) + row] = f[part][i] * d_rows[row];
      }
    }
  }
};

// What all threads of a group do.
template <class Way, int kRows, int kStrips, class Work>
EDGE_FN void multiply_strips(const Work& work, int thread, int64_t strip0) {
  using Grouped = Group<Way, Work, kRows, kStrips>;
  using Copied = typename Grouped::Copied;
  using Taken = typename Grouped::Taken;
  EDGE_SHARED(Copied, stages, [2]);
  EDGE_SHARED(Taken, unpacked, [1]);
  Grouped group(work, thread, strip0);
  group.clear_rows(stages[0]);
  group.clear_rows(stages[1]);
  group.copy(0, stages[0]);
  int number = 0;
  const int64_t n_tiles = work.matrix().n_tiles;
  for (int64_t tile0 = 0; tile0 < n_tiles; tile0 += kGemmTiles, number ^= 1) {
    const int n = group.n_tiles_from(tile0);
    wait_for_copies();
    EDGE_SYNC();
    if (tile0 + kGemmTiles < n_tiles) group.copy(tile0 + kGemmTiles, stages[number ^ 1]);
    group.unpack(tile0, n, stages[number], unpacked[0]);
    EDGE_SYNC();
    Way::multiply(group, n, stages[number], unpacked[0]);
  }
  group.store();
}

}  // namespace EDGE_DEVICE

// Of a kernel with groups of so many strips.
#define EDGE_GEMM_BOUNDS(n_strips) \
  __launch_bounds__(kGemmStripThreads*(n_strips), kThreadsAtOnce / (kGemmStripThreads * (n_strips)))
