// Matmuls with f32 activations, written once on vec16.h and included inside each ISA's namespace.
// Rows of the strip are the 16 lanes. The sum over k runs in four chains (k mod 4), added as
// (c0 + c1) + (c2 + c3): chains hide the latency of the fma. F16 weights always come this way; the
// E formats only where a file asks for act "f32", so their tiles are decoded by the scalar
// definition.

// Where fma is software it is large: there loops stay loops.
#if defined(__FMA__) || defined(__aarch64__)
#define EDGE_UNROLL_SUMS EDGE_UNROLL
#else
#define EDGE_UNROLL_SUMS
#endif

namespace {

constexpr int kRowsAtOnce = 4;

struct F16Columns {
  const TileF16* tile;
  EDGE_MEMBER_INLINE explicit F16Columns(const uint8_t* p)
      : tile(reinterpret_cast<const TileF16*>(p)) {}
  EDGE_MEMBER_INLINE V column(int k) const { return load_f16(tile->w[k]); }
};

template <class Tile>
struct DecodedColumns {
  float w[kTileK][kTileRows];
  template <class Packed>
  EDGE_MEMBER_INLINE explicit DecodedColumns(Packed p) {
    const auto& tile = tile_view<Tile>(p);
    for (int k = 0; k < kTileK; ++k) {
      for (int row = 0; row < kTileRows; ++row) w[k][row] = tile_value(tile, row, k);
    }
  }
  EDGE_MEMBER_INLINE V column(int k) const { return load(w[k]); }
};

template <class Columns, class Tile, int kRows>
void strip_rows_f32(const uint8_t* strip, const MatmulArgs& args, int row0, float* y) {
  V sum[kRows][4];
  EDGE_UNROLL_SUMS
  for (int r = 0; r < kRows; ++r) {
    EDGE_UNROLL_SUMS
    for (int c = 0; c < 4; ++c) sum[r][c] = zero();
  }
  const uint8_t* tile = strip + tiles_offset_of<Tile>(args.n_tiles);
  for (int64_t i = 0; i < args.n_tiles; ++i, tile += sizeof(Tile)) {
    const Columns columns(packed_tile<Tile>(strip, tile, i));
    const float* a = args.f + kTileK * (row0 * args.n_tiles + i);
    for (int k = 0; k < kTileK; k += 4) {
      EDGE_UNROLL_SUMS
      for (int c = 0; c < 4; ++c) {
        const V w = columns.column(k + c);
        EDGE_UNROLL_SUMS
        for (int r = 0; r < kRows; ++r) {
          sum[r][c] = fma(w, set1(a[kTileK * r * args.n_tiles + k + c]), sum[r][c]);
        }
      }
    }
  }
  const V d_row = load(reinterpret_cast<const float*>(strip));
  EDGE_UNROLL_SUMS
  for (int r = 0; r < kRows; ++r) {
    const V total = add(add(sum[r][0], sum[r][1]), add(sum[r][2], sum[r][3]));
    store(y + (row0 + r) * args.y_stride, mul(total, d_row));
  }
}

template <class Columns, class Tile>
EDGE_INLINE void matmul_f32(const MatmulArgs& args) {
  using RowsFn = void (*)(const uint8_t*, const MatmulArgs&, int, float*);
  static constexpr RowsFn kByRows[kRowsAtOnce] = {
      strip_rows_f32<Columns, Tile, 1>, strip_rows_f32<Columns, Tile, 2>,
      strip_rows_f32<Columns, Tile, 3>, strip_rows_f32<Columns, Tile, 4>};
  const size_t strip_size = strip_bytes_of<Tile>(sizeof(Tile), args.n_tiles);
  for (int64_t s = 0; s < args.n_strips; ++s) {
    const uint8_t* strip = args.strips + static_cast<size_t>(s) * strip_size;
    for (int row0 = 0; row0 < args.n_rows; row0 += kRowsAtOnce) {
      const int rows = args.n_rows - row0 < kRowsAtOnce ? args.n_rows - row0 : kRowsAtOnce;
      kByRows[rows - 1](strip, args, row0, args.y + s * kTileRows);
    }
  }
}

}  // namespace

#undef EDGE_UNROLL_SUMS
