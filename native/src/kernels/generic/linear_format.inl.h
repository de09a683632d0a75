// L4_32 and K4_32 on bytes16.h, with VNNI and without: nibbles are the unsigned bytes of a product.
// L4's zero point leaves as zero * -sum(q), a madd with lanes whose upper half is 0; K4's minimum
// is a float. Included after gemm_a8.inl.h, tile_quads.inl.h and what defines NibbleSum: start(),
// add_quad(), finish() of the i32 sum(w * q) - zero * sum(q), total() of one that began with 0, and
// kRowsOfBytes.

EDGE_INLINE void quads_of_nibbles(const uint8_t* nibbles, int j, I& even, I& odd) {
  const I low = set1_i(0x0F0F0F0F);
  const I x = load_64_bytes(nibbles + 64 * j);
  even = bit_and(x, low);
  odd = bit_and(shr_i16(x, 4), low);
}

// -sum(q) of 32 columns, from -64 * sum(q) of 16.
EDGE_INLINE int32_t minus_sum_of(const int32_t* bias) { return (bias[0] + bias[1]) >> 6; }

constexpr int kZerosAt = 2 * kTileRows;    // after the f16 scales
constexpr int kNibblesAt = 3 * kTileRows;  // after the zero points

struct L4_32 {
  static constexpr int kTileBytes = sizeof(TileL4_32);
  static constexpr int kRowsAtOnce = kRowsOfBytes;
  static constexpr int kStreamRows = kRowsOfBytes < 4 ? 2 : 4;

  struct alignas(64) Tile {
    uint8_t w[8][64];
    float s[kTileRows];
    int32_t zeros[kTileRows];

    EDGE_MEMBER_INLINE void unpack(const uint8_t* packed) {
      EDGE_UNROLL
      for (int j = 0; j < 4; ++j) {
        I even, odd;
        quads_of_nibbles(packed + kNibblesAt, j, even, odd);
        store_i(reinterpret_cast<int32_t*>(w[2 * j]), even);
        store_i(reinterpret_cast<int32_t*>(w[2 * j + 1]), odd);
      }
      store(s, load_f16(reinterpret_cast<const uint16_t*>(packed)));
      store_i(zeros, load_u8(packed + kZerosAt));
    }
  };

  struct Rows {
    const int8_t* q;
    int32_t minus_sums[kBlockTiles * kMaxKRows];

    EDGE_MEMBER_INLINE void prepare(const int8_t* from, const int32_t* bias, int n_blocks) {
      q = from;
      for (int i = 0; i < n_blocks; ++i) minus_sums[i] = minus_sum_of(bias + 2 * i);
    }
  };

  template <int R>
  static EDGE_MEMBER_INLINE void block_sums(const Tile& tile, const Rows& rows, int block, V* x) {
    I sum[R];
    const I zeros = load_i(tile.zeros);
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) sum[r] = NibbleSum::start(rows.minus_sums[block + r], zeros);
    const int8_t* a = rows.q + kTileK * block;
    EDGE_UNROLL
    for (int t = 0; t < 8; ++t) {
      const I w = load_64_bytes(tile.w[t]);
      EDGE_UNROLL
      for (int r = 0; r < R; ++r) NibbleSum::add_quad(sum[r], w, a + kTileK * r + 4 * t);
    }
    const V s = load(tile.s);
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) {
      x[r] = mul(s, to_float(NibbleSum::finish(sum[r], rows.minus_sums[block + r], zeros)));
    }
  }

  // K rows times a packed tile.
  template <int K>
  static EDGE_MEMBER_INLINE void packed_sums(const uint8_t* packed, const int8_t* a,
                                             const int32_t* bias, V* x) {
    I sum[K];
    const I zeros = load_u8(packed + kZerosAt);
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) sum[r] = NibbleSum::start(minus_sum_of(bias + 2 * r), zeros);
    EDGE_UNROLL
    for (int j = 0; j < 4; ++j) {
      I even, odd;
      quads_of_nibbles(packed + kNibblesAt, j, even, odd);
      EDGE_UNROLL
      for (int r = 0; r < K; ++r) {
        NibbleSum::add_quad(sum[r], even, a + kTileK * r + 8 * j);
        NibbleSum::add_quad(sum[r], odd, a + kTileK * r + 8 * j + 4);
      }
    }
    const V s = load_f16(reinterpret_cast<const uint16_t*>(packed));
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) {
      x[r] = mul(s, to_float(NibbleSum::finish(sum[r], minus_sum_of(bias + 2 * r), zeros)));
    }
  }
};

struct K4_32 {
  static constexpr int kTileBytes = sizeof(TileK4_32);
  static constexpr size_t kHeadBytes = TileK4_32::kHeadBytes;
  static constexpr int kRowsAtOnce = kRowsOfBytes;
  static constexpr int kStreamRows = kRowsOfBytes < 4 ? 2 : 4;

  // Both exact: 11 times 8 bits.
  static EDGE_MEMBER_INLINE V scales(HeadedTile packed) {
    return mul(load_f16(reinterpret_cast<const uint16_t*>(packed.head)),
               to_float(load_u8(packed.tile)));
  }
  static EDGE_MEMBER_INLINE V mins(HeadedTile packed) {
    return mul(load_f16(reinterpret_cast<const uint16_t*>(packed.head) + kTileRows),
               to_float(load_u8(packed.tile + kTileRows)));
  }
  // x of docs/KERNELS.md.
  static EDGE_MEMBER_INLINE V block_value(I sum, V s, V m, float minus_sum) {
    return fma(s, to_float(NibbleSum::total(sum)), mul(m, set1(minus_sum)));
  }

  struct alignas(64) Tile {
    uint8_t w[8][64];
    float s[kTileRows];
    float min[kTileRows];

    EDGE_MEMBER_INLINE void unpack(HeadedTile packed) {
      EDGE_UNROLL
      for (int j = 0; j < 4; ++j) {
        I even, odd;
        quads_of_nibbles(packed.tile + 2 * kTileRows, j, even, odd);
        store_i(reinterpret_cast<int32_t*>(w[2 * j]), even);
        store_i(reinterpret_cast<int32_t*>(w[2 * j + 1]), odd);
      }
      store(s, scales(packed));
      store(min, mins(packed));
    }
  };

  struct Rows {
    const int8_t* q;
    float minus_sums[kBlockTiles * kMaxKRows];

    EDGE_MEMBER_INLINE void prepare(const int8_t* from, const int32_t* bias, int n_blocks) {
      q = from;
      for (int i = 0; i < n_blocks; ++i) {
        minus_sums[i] = static_cast<float>(minus_sum_of(bias + 2 * i));
      }
    }
  };

  template <int R>
  static EDGE_MEMBER_INLINE void block_sums(const Tile& tile, const Rows& rows, int block, V* x) {
    I sum[R];
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) sum[r] = zero_i();
    const int8_t* a = rows.q + kTileK * block;
    EDGE_UNROLL
    for (int t = 0; t < 8; ++t) {
      const I w = load_64_bytes(tile.w[t]);
      EDGE_UNROLL
      for (int r = 0; r < R; ++r) NibbleSum::add_quad(sum[r], w, a + kTileK * r + 4 * t);
    }
    const V s = load(tile.s);
    const V m = load(tile.min);
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) x[r] = block_value(sum[r], s, m, rows.minus_sums[block + r]);
  }

  // K rows times a packed tile.
  template <int K>
  static EDGE_MEMBER_INLINE void packed_sums(HeadedTile packed, const int8_t* a,
                                             const int32_t* bias, V* x) {
    I sum[K];
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) sum[r] = zero_i();
    EDGE_UNROLL
    for (int j = 0; j < 4; ++j) {
      I even, odd;
      quads_of_nibbles(packed.tile + 2 * kTileRows, j, even, odd);
      EDGE_UNROLL
      for (int r = 0; r < K; ++r) {
        NibbleSum::add_quad(sum[r], even, a + kTileK * r + 8 * j);
        NibbleSum::add_quad(sum[r], odd, a + kTileK * r + 8 * j + 4);
      }
    }
    const V s = scales(packed);
    const V m = mins(packed);
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) {
      x[r] = block_value(sum[r], s, m, static_cast<float>(minus_sum_of(bias + 2 * r)));
    }
  }
};
