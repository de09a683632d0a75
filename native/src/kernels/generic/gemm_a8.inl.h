// The integer matmul for many rows and for few, written once on vec16.h and bytes16.h and included
// inside an unnamed namespace of each ISA. A few tiles of a strip at a time are unpacked into bytes
// that stay in L1 and serve all rows, up to 128 in one pass; sums wait in L1.
//
// Fmt supplies: kTileBytes; kRowsAtOnce, as many rows as registers hold the sums of products of;
// Tile with unpack() of a packed_tile() (quant/tile_stream.h); Rows, the activations of a panel in
// the form that it wants; block_sums(), the x of docs/KERNELS.md for some of them; packed_sums(),
// the same for the rows of a whole call, from the packed tile, and kStreamRows, up to how many of
// them it is the faster (2 or 4). Where registers hold more, instead of block_sums() add_panel(): a
// block of tiles times a panel.

constexpr int kBlockTiles = 8;
constexpr int kMaxBlockRows = 128;
constexpr int kFewRows = kMaxKRows;  // one panel: weights come from memory, not from cache

template <class Fmt>
EDGE_INLINE const uint8_t* strip_of(const MatmulArgs& args, int64_t strip) {
  return args.strips +
         strip_bytes_of<Fmt>(Fmt::kTileBytes, args.n_tiles) * static_cast<size_t>(strip);
}

// Reads tile bytes ahead into L1: the hardware prefetcher stops at 4 KiB boundaries.
template <class Fmt>
EDGE_INLINE void prefetch_ahead(const uint8_t* tile) {
  constexpr int kDistance = 2304;
  EDGE_UNROLL
  for (int b = 0; b < Fmt::kTileBytes; b += 64) prefetch_l1(tile + kDistance + b);
}

template <class Fmt>
class GemmBlock {
 public:
  // Rows row0.. of the call, row0 a multiple of kMaxKRows; up to kMaxBlockRows.
  EDGE_MEMBER_INLINE GemmBlock(const MatmulArgs& args, int row0, int n_rows)
      : args_(args), row0_(row0), n_rows_(n_rows) {}

  EDGE_MEMBER_INLINE void run(int64_t strip_index) {
    const uint8_t* strip = strip_of<Fmt>(args_, strip_index);
    for (int r = 0; r < n_rows_; ++r) store(sums_ + r * kTileRows, zero());
    for (int64_t tile0 = 0; tile0 < args_.n_tiles; tile0 += kBlockTiles) {
      add_tiles(strip, tile0);
    }
    const V d_row = load(reinterpret_cast<const float*>(strip));
    float* y = args_.y + row0_ * args_.y_stride + strip_index * kTileRows;
    for (int r = 0; r < n_rows_; ++r) {
      store(y + r * args_.y_stride, mul(load(sums_ + r * kTileRows), d_row));
    }
  }

 private:
  EDGE_MEMBER_INLINE void add_tiles(const uint8_t* strip, int64_t tile0) {
    const int64_t left = args_.n_tiles - tile0;
    const int n_tiles = left < kBlockTiles ? static_cast<int>(left) : kBlockTiles;
    const uint8_t* packed = strip + tiles_offset_of<Fmt>(args_.n_tiles) + Fmt::kTileBytes * tile0;
    for (int i = 0; i < n_tiles; ++i) {
      if (n_rows_ <= kFewRows) prefetch_ahead<Fmt>(packed + Fmt::kTileBytes * i);
      tiles_[i].unpack(packed_tile<Fmt>(strip, packed + Fmt::kTileBytes * i, tile0 + i));
    }
    for (int row = 0; row < n_rows_; row += kMaxKRows) {
      const int rows = n_rows_ - row < kMaxKRows ? n_rows_ - row : kMaxKRows;
      const int64_t at = (row0_ + row) * args_.n_tiles + tile0 * rows;
      if (n_rows_ > kFewRows) prefetch_share(packed + Fmt::kTileBytes * kBlockTiles, row);
      panel_.prepare(args_.q + kTileK * at, args_.bias + 2 * at, n_tiles * rows);
      add_panel(args_.d + at, rows, n_tiles, sums_ + row * kTileRows);
    }
  }

  // The next tiles come to L2 while these are used; a share of them with every panel.
  EDGE_MEMBER_INLINE void prefetch_share(const uint8_t* next, int row) const {
    constexpr int kBytes = Fmt::kTileBytes * kBlockTiles;
    const int n_panels = (n_rows_ + kMaxKRows - 1) / kMaxKRows;
    for (int b = 64 * (row / kMaxKRows); b < kBytes; b += 64 * n_panels) prefetch_l2(next + b);
  }

  EDGE_MEMBER_INLINE void add_panel(const float* d, int n_rows, int n_tiles, float* sums) {
    if constexpr (requires { &Fmt::add_panel; }) {
      Fmt::add_panel(tiles_, n_tiles, panel_, d, n_rows, sums);
    } else {
      constexpr int R = Fmt::kRowsAtOnce;
      int block = 0;  // of the panel: tile by tile, row by row
      for (int i = 0; i < n_tiles; ++i) {
        int row = 0;
        for (; row + R <= n_rows; row += R, block += R) add_rows<R>(tiles_[i], block, d, sums, row);
        for (; row < n_rows; ++row, ++block) add_rows<1>(tiles_[i], block, d, sums, row);
      }
    }
  }

  template <int R>
  EDGE_MEMBER_INLINE void add_rows(const typename Fmt::Tile& tile, int block, const float* d,
                                   float* sums, int row) {
    V x[R];
    Fmt::template block_sums<R>(tile, panel_, block, x);
    sums += row * kTileRows;
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) {
      float* sum = sums + r * kTileRows;
      store(sum, fma(x[r], set1(d[block + r]), load(sum)));
    }
  }

  const MatmulArgs& args_;
  int row0_;
  int n_rows_;
  alignas(64) typename Fmt::Tile tiles_[kBlockTiles];
  alignas(64) typename Fmt::Rows panel_;
  alignas(64) float sums_[kMaxBlockRows * kTileRows];
};

// Any number of rows.
template <class Fmt>
void gemm(const MatmulArgs& args) {
  for (int row0 = 0; row0 < args.n_rows; row0 += kMaxBlockRows) {
    const int n_rows = args.n_rows - row0 < kMaxBlockRows ? args.n_rows - row0 : kMaxBlockRows;
    GemmBlock<Fmt> block(args, row0, n_rows);
    for (int64_t s = 0; s < args.n_strips; ++s) block.run(s);
  }
}

// Few rows, where the weights' bytes are what takes time: nothing is unpacked into memory.
template <class Fmt, int K>
void stream(const MatmulArgs& args) {
  for (int64_t s = 0; s < args.n_strips; ++s) {
    const uint8_t* strip = strip_of<Fmt>(args, s);
    const uint8_t* tile = strip + tiles_offset_of<Fmt>(args.n_tiles);
    V sum[K];
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) sum[r] = zero();
    for (int64_t i = 0; i < args.n_tiles; ++i, tile += Fmt::kTileBytes) {
      prefetch_ahead<Fmt>(tile);
      const int64_t block = i * K;
      V x[K];
      Fmt::template packed_sums<K>(packed_tile<Fmt>(strip, tile, i), args.q + kTileK * block,
                                   args.bias + 2 * block, x);
      EDGE_UNROLL
      for (int r = 0; r < K; ++r) sum[r] = fma(x[r], set1(args.d[block + r]), sum[r]);
    }
    const V d_row = load(reinterpret_cast<const float*>(strip));
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) {
      store(args.y + r * args.y_stride + s * kTileRows, mul(sum[r], d_row));
    }
  }
}

template <class Fmt>
EDGE_INLINE void matmul(const MatmulArgs& args) {
  if (args.n_rows == 1) return stream<Fmt, 1>(args);
  if (args.n_rows == 2) return stream<Fmt, 2>(args);
  if constexpr (Fmt::kStreamRows == 4) {
    if (args.n_rows == 3) return stream<Fmt, 3>(args);
    if (args.n_rows == 4) return stream<Fmt, 4>(args);
  }
  gemm<Fmt>(args);
}
