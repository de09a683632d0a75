// The E formats and L8_32 for CPUs that multiply u8 by i8 into i16 pairs (no VNNI), on bytes16.h;
// included after gemm_a8.inl.h.
//
// Scales are multiplied in where i16 pairs become i32: madd(pairs, s) adds s * (p0 + p1), so that
// one i32 sum holds s0*D0 + s1*D1 exactly (below 2^31 even before the zero point is taken off), and
// converting it rounds once, as docs/KERNELS.md wants; for one group float(s) * float(D) rounds the
// same exact product. The zero point z is one more such madd, of the two sums of q with -s*z, and
// E4's second LUT (LUT 0 + 2) is nothing but another z: 62 instead of 64.

// i16 pairs (of columns k..k+15, of columns k+16..k+31), one pair a row.
EDGE_INLINE I two_scale_bytes(const uint8_t* sc) {
  return bit_or(load_u8(sc), shl(load_u8(sc + kTileRows), 16));
}
EDGE_INLINE I one_scale_byte(const uint8_t* sc) {
  const I x = load_u8(sc);
  return bit_or(x, shl(x, 16));
}
EDGE_INLINE I set1_i16(int16_t x) { return set1_i(x * 0x10001); }
template <int kMask>  // group_scale() of quant/tiles.h
EDGE_INLINE I group_scales(I sc) {
  return sub_i16(bit_and(sc, set1_i16(0xFF & ~kMask)), set1_i16(128 - (kMask + 1) / 2));
}

EDGE_INLINE I shuffle_constant(const uint8_t (&bytes)[16]) { return repeat_16_bytes(bytes); }
constexpr uint8_t kFirstOfPair[16] = {0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13};
constexpr uint8_t kSecondOfPair[16] = {2, 3, 2, 3, 6, 7, 6, 7, 10, 11, 10, 11, 14, 15, 14, 15};
constexpr uint8_t kLowHalves[16] = {0, 1, 4, 5, 0, 1, 4, 5, 0, 1, 4, 5, 0, 1, 4, 5};

// What a tile's scale bytes say.
template <int kGroups>
struct TileScales {
  I s[kGroups];  // pairs (s, s)
  I s_zero;      // pairs (s0 * z0, s1 * z1)
};

template <class Fmt>
EDGE_INLINE TileScales<Fmt::kGroups> tile_scales(const uint8_t* sc) {
  if constexpr (Fmt::kGroups == 1) {
    const I bytes = one_scale_byte(sc);
    const I s = group_scales<Fmt::kScaleMask>(bytes);
    return {{s}, mul_i16(s, Fmt::zero_point(bytes))};
  } else {
    const I bytes = two_scale_bytes(sc);
    const I s = group_scales<Fmt::kScaleMask>(bytes);
    return {{shuffle_bytes(s, shuffle_constant(kFirstOfPair)),
             shuffle_bytes(s, shuffle_constant(kSecondOfPair))},
            mul_i16(s, Fmt::zero_point(bytes))};
  }
}

// ---- many rows

template <class Fmt>
struct alignas(64) ByteTile {
  uint8_t w[8][64];
  int32_t s[Fmt::kGroups][kTileRows];
  int32_t s_zero[kTileRows];

  EDGE_MEMBER_INLINE void unpack(const uint8_t* packed) {
    EDGE_UNROLL
    for (int j = 0; j < 4; ++j) {
      I even, odd;
      Fmt::quads(packed + kTileRows * Fmt::kGroups, j, even, odd);
      store_i(reinterpret_cast<int32_t*>(w[2 * j]), even);
      store_i(reinterpret_cast<int32_t*>(w[2 * j + 1]), odd);
    }
    const TileScales<Fmt::kGroups> scales = tile_scales<Fmt>(packed);
    for (int g = 0; g < Fmt::kGroups; ++g) store_i(s[g], scales.s[g]);
    store_i(s_zero, scales.s_zero);
  }
};

struct ByteRows {
  const int8_t* q;
  int32_t minus_sums[kBlockTiles * kMaxKRows];  // i16 pairs of -sum(q), from -64 * sum(q)

  EDGE_MEMBER_INLINE void prepare(const int8_t* from, const int32_t* bias, int n_blocks) {
    q = from;
    for (int i = 0; i < n_blocks; ++i) {
      const auto low = static_cast<uint32_t>(bias[2 * i] >> 6) & 0xFFFF;
      const auto high = static_cast<uint32_t>(bias[2 * i + 1] >> 6) << 16;
      minus_sums[i] = static_cast<int32_t>(low | high);
    }
  }
};

// Self is the format. kSumsOfFour: products of two quads add in i16 without overflow. kMask: the
// bits of a scale byte that are not the scale's.
template <class Self, int kGroupsOf, bool kSumsOfFour, int kMask = 1>
struct ByteFormat {
  static constexpr int kGroups = kGroupsOf;
  static constexpr int kScaleMask = kMask;
  static constexpr int kRowsAtOnce = kRowsOfBytes;
  static constexpr int kStreamRows = kRowsOfBytes < 4 ? 2 : 4;
  using Tile = ByteTile<ByteFormat>;
  using Rows = ByteRows;

  static EDGE_MEMBER_INLINE I zero_point(I sc) { return Self::zero_point(sc); }
  static EDGE_MEMBER_INLINE void quads(const uint8_t* p, int j, I& even, I& odd) {
    Self::quads(p, j, even, odd);
  }

  // sum += s * (products of quads w0 and w1 with 8 activations)
  static EDGE_MEMBER_INLINE void add_pair(I& sum, I w0, I w1, I s, const int8_t* a) {
    if constexpr (kSumsOfFour) {
      const I pairs = add_i16(products(w0, a), products(w1, a + 4));
      sum = add(sum, madd_i16(pairs, s));
      settle(sum);
    } else {
      add_quad(sum, w0, s, a);
      add_quad(sum, w1, s, a + 4);
    }
  }
  static EDGE_MEMBER_INLINE void add_quad(I& sum, I w, I s, const int8_t* a) {
    sum = add(sum, madd_i16(products(w, a), s));
    settle(sum);
  }
  static EDGE_MEMBER_INLINE I products(I w, const int8_t* a) {
    return madd_u8_i8(w, repeat_4_bytes(a));
  }

  template <int R>
  static EDGE_MEMBER_INLINE void block_sums(const Tile& tile, const Rows& rows, int block, V* x) {
    I sum[R];
    const I s_zero = load_i(tile.s_zero);
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) sum[r] = madd_i16(set1_i(rows.minus_sums[block + r]), s_zero);
    const int8_t* a = rows.q + kTileK * block;
    EDGE_UNROLL
    for (int t = 0; t < 8; t += 2) {
      const I s = load_i(tile.s[t * kGroups / 8]);
      const I w0 = load_64_bytes(tile.w[t]);
      if constexpr (kSumsOfFour) {
        const I w1 = load_64_bytes(tile.w[t + 1]);
        EDGE_UNROLL
        for (int r = 0; r < R; ++r) add_pair(sum[r], w0, w1, s, a + kTileK * r + 4 * t);
      } else {
        EDGE_UNROLL
        for (int r = 0; r < R; ++r) add_quad(sum[r], w0, s, a + kTileK * r + 4 * t);
        const I w1 = load_64_bytes(tile.w[t + 1]);
        EDGE_UNROLL
        for (int r = 0; r < R; ++r) add_quad(sum[r], w1, s, a + kTileK * r + 4 * t + 4);
      }
    }
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) x[r] = to_float(sum[r]);
  }

  // K rows times a packed tile.
  template <int K>
  static EDGE_MEMBER_INLINE void packed_sums(const uint8_t* packed, const int8_t* a,
                                             const int32_t* bias, V* x) {
    const TileScales<kGroups> scales = tile_scales<ByteFormat>(packed);
    I sum[K];
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) {
      const I sums = sar(repeat_8_bytes(bias + 2 * r), 6);
      sum[r] = madd_i16(shuffle_bytes(sums, shuffle_constant(kLowHalves)), scales.s_zero);
    }
    EDGE_UNROLL
    for (int j = 0; j < 4; ++j) {
      I even, odd;
      quads(packed + kTileRows * kGroups, j, even, odd);
      const I s = scales.s[j * kGroups / 4];
      EDGE_UNROLL
      for (int r = 0; r < K; ++r) add_pair(sum[r], even, odd, s, a + kTileK * r + 8 * j);
    }
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) x[r] = to_float(sum[r]);
  }
};

EDGE_INLINE I zero_point_e4(I sc) {
  const I lut1 = bit_and(sc, set1_i16(1));
  return sub_i16(set1_i16(kLutE4Zero), add_i16(lut1, lut1));
}
static_assert(kLutE4Shift == 2);

struct E2_16 : ByteFormat<E2_16, 2, true, kE2ZeroMask> {  // 4 * 31 * 127 < 2^15
  static constexpr int kTileBytes = sizeof(TileE2_16);
  static EDGE_MEMBER_INLINE I zero_point(I sc) {
    static_assert(kE2ZeroStep == 2);
    return sub_i16(set1_i16(kE2Zero), shl_i16(bit_and(sc, set1_i16(kE2ZeroMask)), 1));
  }
  static EDGE_MEMBER_INLINE void quads(const uint8_t* p, int j, I& even, I& odd) {
    quads_e2(p, j, even, odd);
  }
};

struct E3_32 : ByteFormat<E3_32, 1, true, kE3ZeroMask> {  // 4 * 63 * 127 < 2^15
  static constexpr int kTileBytes = sizeof(TileE3_32);
  static EDGE_MEMBER_INLINE I zero_point(I sc) {
    static_assert(kE3ZeroStep == 4);
    return sub_i16(set1_i16(kE3Zero), shl_i16(bit_and(sc, set1_i16(kE3ZeroMask)), 2));
  }
  static EDGE_MEMBER_INLINE void quads(const uint8_t* p, int j, I& even, I& odd) {
    quads_e3(p, j, even, odd);
  }
};

struct E4_16 : ByteFormat<E4_16, 2, false> {
  static constexpr int kTileBytes = sizeof(TileE4_16);
  static EDGE_MEMBER_INLINE I zero_point(I sc) { return zero_point_e4(sc); }
  static EDGE_MEMBER_INLINE void quads(const uint8_t* p, int j, I& even, I& odd) {
    quads_e4(p, j, even, odd);
  }
};

struct E4_32 : ByteFormat<E4_32, 1, false> {
  static constexpr int kTileBytes = sizeof(TileE4_32);
  static EDGE_MEMBER_INLINE I zero_point(I sc) { return zero_point_e4(sc); }
  static EDGE_MEMBER_INLINE void quads(const uint8_t* p, int j, I& even, I& odd) {
    quads_e4(p, j, even, odd);
  }
};

struct E6_16 : ByteFormat<E6_16, 2, true> {  // 4 * 63 * 127 < 2^15
  static constexpr int kTileBytes = sizeof(TileE6_16);
  static EDGE_MEMBER_INLINE I zero_point(I) { return set1_i16(kE6Zero); }
  static EDGE_MEMBER_INLINE void quads(const uint8_t* p, int j, I& even, I& odd) {
    quads_e6(p, j, even, odd);
  }
};

// What L4_32 and K4_32 sum nibbles with (linear_format.inl.h): i16 pairs hold 8 * 2 * 15 * 127 <
// 2^15, all 32 columns, so that one madd makes them i32.
struct NibbleSum {
  static EDGE_MEMBER_INLINE I start(int32_t, I) { return zero_i(); }
  static EDGE_MEMBER_INLINE void add_quad(I& sum, I w, const int8_t* a) {
    sum = add_i16(sum, madd_u8_i8(w, repeat_4_bytes(a)));
    settle(sum);
  }
  static EDGE_MEMBER_INLINE I finish(I sum, int32_t minus_sum, I zeros) {
    return add(total(sum), madd_i16(set1_i(minus_sum), zeros));
  }
  static EDGE_MEMBER_INLINE I total(I sum) { return madd_i16(sum, set1_i16(1)); }
};

// ---- E8_32 and L8_32: eight bits of weight do not fit pairs of u8 products

constexpr uint8_t kZeroByte = 0x80;  // shuffles to zero
constexpr uint8_t kColumns01[16] = {0, kZeroByte, 1, kZeroByte, 4,  kZeroByte, 5,  kZeroByte,
                                    8, kZeroByte, 9, kZeroByte, 12, kZeroByte, 13, kZeroByte};
constexpr uint8_t kColumns23[16] = {2,  kZeroByte, 3,  kZeroByte, 6,  kZeroByte, 7,  kZeroByte,
                                    10, kZeroByte, 11, kZeroByte, 14, kZeroByte, 15, kZeroByte};

// What the sum of a group is multiplied by: factors(), pairs of i16 (|s * (q - 128)| <= 127 * 128),
// and, where a scale is an f32, that in scaled() afterwards; factors are 1 then.
struct E8Scales {
  static constexpr int kTileBytes = sizeof(TileE8_32);
  static constexpr int kQuadsAt = kTileRows;
  static constexpr bool kFloats = false;
  static EDGE_MEMBER_INLINE I factors(const uint8_t* packed) {
    return group_scales<1>(one_scale_byte(packed));
  }
};
struct L8Scales {
  static constexpr int kTileBytes = sizeof(TileL8_32);
  static constexpr int kQuadsAt = 2 * kTileRows;
  static constexpr bool kFloats = true;
  static EDGE_MEMBER_INLINE I factors(const uint8_t*) { return set1_i16(1); }
  static EDGE_MEMBER_INLINE V floats(const uint8_t* packed) {
    return load_f16(reinterpret_cast<const uint16_t*>(packed));
  }
};

// For many rows: factor * (q - 128) as i16, pairs of columns.
template <class Scales>
struct alignas(64) WideTile {
  int32_t w[16][kTileRows];
  float s[Scales::kFloats ? kTileRows : 1];

  EDGE_MEMBER_INLINE void unpack(const uint8_t* packed) {
    const I factors = Scales::factors(packed);
    const I zero = set1_i16(kE8Zero);
    EDGE_UNROLL
    for (int t = 0; t < 8; ++t) {
      const I x = load_64_bytes(packed + Scales::kQuadsAt + 64 * t);
      I w01 = sub_i16(shuffle_bytes(x, shuffle_constant(kColumns01)), zero);
      I w23 = sub_i16(shuffle_bytes(x, shuffle_constant(kColumns23)), zero);
      if constexpr (!Scales::kFloats) {
        w01 = mul_i16(w01, factors);
        w23 = mul_i16(w23, factors);
      }
      store_i(w[2 * t], w01);
      store_i(w[2 * t + 1], w23);
    }
    if constexpr (Scales::kFloats) store(s, Scales::floats(packed));
  }
};

struct WideRows {
  int16_t q[kBlockTiles * kMaxKRows * kTileK];

  EDGE_MEMBER_INLINE void prepare(const int8_t* from, const int32_t*, int n_blocks) {
    for (int i = 0; i < n_blocks * kTileK; ++i) q[i] = from[i];
  }
};

template <class Scales>
struct WideFormat {
  static constexpr int kTileBytes = Scales::kTileBytes;
  static constexpr int kRowsAtOnce = kRowsOfBytes;
  static constexpr int kStreamRows = kRowsOfBytes < 4 ? 2 : 4;
  using Tile = WideTile<Scales>;
  using Rows = WideRows;

  template <int R>
  static EDGE_MEMBER_INLINE void block_sums(const Tile& tile, const Rows& rows, int block, V* x) {
    I sum[R];
    const int16_t* a = rows.q + kTileK * block;
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) sum[r] = zero_i();
    EDGE_UNROLL
    for (int t = 0; t < 8; ++t) {
      const I w01 = load_i(tile.w[2 * t]);
      EDGE_UNROLL
      for (int r = 0; r < R; ++r) add_pair(sum[r], w01, a + kTileK * r + 4 * t);
      const I w23 = load_i(tile.w[2 * t + 1]);
      EDGE_UNROLL
      for (int r = 0; r < R; ++r) add_pair(sum[r], w23, a + kTileK * r + 4 * t + 2);
    }
    if constexpr (Scales::kFloats) return scaled<R>(load(tile.s), sum, x);
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) x[r] = to_float(sum[r]);
  }

  static EDGE_MEMBER_INLINE void add_pair(I& sum, I w, const int16_t* a) {
    sum = add(sum, madd_i16(w, repeat_4_bytes(a)));
    settle(sum);
  }
  template <int R>
  static EDGE_MEMBER_INLINE void scaled(V s, const I* sum, V* x) {
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) x[r] = mul(s, to_float(sum[r]));
  }

  // (q & 127) - (~q & 128) is q - 128: each part's pairs fit i16, and so does what they make
  // together.
  template <int K>
  static EDGE_MEMBER_INLINE void packed_sums(const uint8_t* packed, const int8_t* a, const int32_t*,
                                             V* x) {
    const I factors = Scales::factors(packed);
    const I top = set1_i(static_cast<int32_t>(0x80808080));
    I sum[K];
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) sum[r] = zero_i();
    EDGE_UNROLL
    for (int t = 0; t < 8; ++t) {
      const I w = load_64_bytes(packed + Scales::kQuadsAt + 64 * t);
      const I low = and_not(top, w);
      const I high = and_not(w, top);
      EDGE_UNROLL
      for (int r = 0; r < K; ++r) {
        const I act = repeat_4_bytes(a + kTileK * r + 4 * t);
        const I pairs = sub_i16(madd_u8_i8(low, act), madd_u8_i8(high, act));
        sum[r] = add(sum[r], madd_i16(pairs, factors));
        settle(sum[r]);
      }
    }
    if constexpr (Scales::kFloats) return scaled<K>(Scales::floats(packed), sum, x);
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) x[r] = to_float(sum[r]);
  }
};
static_assert(kE8Zero == kL8Zero);

using E8_32 = WideFormat<E8Scales>;
using L8_32 = WideFormat<L8Scales>;
