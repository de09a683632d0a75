// The E formats and L8_32 on vpdpbusd: u8 weights times i8 activations, one i32 sum a group; the
// zero point is what sums start with. Included after gemm_a8.inl.h and tile_quads.inl.h.

// sum + a quad of weights times the quad of activations at `a`.
EDGE_INLINE void add_quad(I& sum, I w, const int8_t* a) {
  const I act = repeat_4_bytes(a);
#ifdef __AVXVNNI__
  sum = {_mm256_dpbusd_avx_epi32(sum.a, w.a, act.a), _mm256_dpbusd_avx_epi32(sum.b, w.b, act.b)};
#else
  sum = {_mm256_dpbusd_epi32(sum.a, w.a, act.a), _mm256_dpbusd_epi32(sum.b, w.b, act.b)};
#endif
  settle(sum);
}

// What L4_32 and K4_32 sum nibbles with (linear_format.inl.h).
constexpr int kRowsOfBytes = 4;
struct NibbleSum {
  static EDGE_MEMBER_INLINE I start(int32_t minus_sum, I zeros) {
    return madd_i16(set1_i(minus_sum), zeros);
  }
  static EDGE_MEMBER_INLINE void add_quad(I& sum, I w, const int8_t* a) {
    edge::add_quad(sum, w, a);
  }
  static EDGE_MEMBER_INLINE I finish(I sum, int32_t, I) { return sum; }
  static EDGE_MEMBER_INLINE I total(I sum) { return sum; }
};

template <int kMask>  // group_scale() of quant/tiles.h
EDGE_INLINE V group_scales(const uint8_t* sc) {
  const I bits = bit_and(load_u8(sc), set1_i(0xFF & ~kMask));
  return to_float(sub(bits, set1_i(128 - (kMask + 1) / 2)));
}

// What the sums of one group start with, from bias = -64 * sum(q) of 16 columns.
template <class Fmt>
EDGE_INLINE int32_t start_value(const int32_t* bias, int group) {
  const int32_t b = Fmt::kGroups == 2 ? bias[group] : bias[0] + bias[1];
  return b / 2 * (Fmt::kZero / 32);
}

// The scales of group g of a packed tile.
template <class Layout>
EDGE_INLINE V scales_of(const uint8_t* packed, int g) {
  if constexpr (requires { &Layout::scales; })
    return Layout::scales(packed);
  else
    return group_scales<Layout::kScaleMask>(packed + kTileRows * g);
}

// x of docs/KERNELS.md: both products of a 16-group format are exact, so fma rounds once.
template <int kGroups>
EDGE_INLINE V scaled(const V* s, const I* sums) {
  if constexpr (kGroups == 1) return mul(s[0], to_float(sums[0]));
  return fma(s[1], to_float(sums[1]), mul(s[0], to_float(sums[0])));
}

template <class Fmt>
struct alignas(64) VnniTile {
  uint8_t w[8][64];
  float s[2][kTileRows];

  EDGE_MEMBER_INLINE void unpack(const uint8_t* packed) {
    EDGE_UNROLL
    for (int j = 0; j < 4; ++j) {
      I even, odd;
      Fmt::quads(packed, j, even, odd);
      store_i(reinterpret_cast<int32_t*>(w[2 * j]), even);
      store_i(reinterpret_cast<int32_t*>(w[2 * j + 1]), odd);
    }
    for (int g = 0; g < Fmt::kGroups; ++g) store(s[g], scales_of<Fmt>(packed, g));
  }
};

template <class Fmt>
struct VnniRows {
  const int8_t* q;
  int32_t start[kBlockTiles * kMaxKRows * Fmt::kGroups];

  EDGE_MEMBER_INLINE void prepare(const int8_t* from, const int32_t* bias, int n_blocks) {
    q = from;
    for (int i = 0; i < n_blocks; ++i) {
      for (int g = 0; g < Fmt::kGroups; ++g) {
        start[Fmt::kGroups * i + g] = start_value<Fmt>(bias + 2 * i, g);
      }
    }
  }
};

// Layout supplies quads(), kGroups, kZero, kTileBytes and either scales() or kScaleMask, the bits
// of a scale byte that are not the scale's.
template <class Layout>
struct VnniFormat : Layout {
  static constexpr int kGroups = Layout::kGroups;
  static constexpr int kRowsAtOnce = kGroups == 2 ? 2 : 4;
  static constexpr int kStreamRows = 4;
  using Tile = VnniTile<Layout>;
  using Rows = VnniRows<Layout>;

  template <int R>
  static EDGE_MEMBER_INLINE void block_sums(const Tile& tile, const Rows& rows, int block, V* x) {
    I sum[R][kGroups];
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) {
      EDGE_UNROLL
      for (int g = 0; g < kGroups; ++g) sum[r][g] = set1_i(rows.start[kGroups * (block + r) + g]);
    }
    const int8_t* a = rows.q + kTileK * block;
    EDGE_UNROLL
    for (int t = 0; t < 8; ++t) {  // turn by turn, so that the groups' sums advance together
      const int quad = t % kGroups * 4 * (kGroups - 1) + t / kGroups;
      const I w = load_64_bytes(tile.w[quad]);
      EDGE_UNROLL
      for (int r = 0; r < R; ++r) add_quad(sum[r][t % kGroups], w, a + kTileK * r + 4 * quad);
    }
    const V s[2] = {load(tile.s[0]), load(tile.s[kGroups - 1])};
    EDGE_UNROLL
    for (int r = 0; r < R; ++r) x[r] = scaled<kGroups>(s, sum[r]);
  }

  template <int K>
  static EDGE_MEMBER_INLINE void packed_sums(const uint8_t* packed, const int8_t* a,
                                             const int32_t* bias, V* x) {
    I sum[K][kGroups];
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) {
      EDGE_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        sum[r][g] = set1_i(start_value<Layout>(bias + 2 * r, g));
      }
    }
    EDGE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int g = j * kGroups / 4;
      I even, odd;
      Layout::quads(packed, j, even, odd);
      EDGE_UNROLL
      for (int r = 0; r < K; ++r) {
        add_quad(sum[r][g], even, a + kTileK * r + 8 * j);
        add_quad(sum[r][g], odd, a + kTileK * r + 8 * j + 4);
      }
    }
    const V s[2] = {scales_of<Layout>(packed, 0), scales_of<Layout>(packed, kGroups - 1)};
    EDGE_UNROLL
    for (int r = 0; r < K; ++r) x[r] = scaled<kGroups>(s, sum[r]);
  }
};

// Rows have zero points z = kFirst - kStep * (sc & kMask); adding 64 - z to their bytes, which stay
// below 128, gives all of them the zero point 64.
constexpr int kCommonZero = 64;
template <int kFirst, int kStep, int kMask>
EDGE_INLINE void move_to_common_zero(const uint8_t* sc, I& even, I& odd) {
  static_assert(kStep == 2 || kStep == 4);
  constexpr uint8_t kFirstBytes[16] = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
  const I index = bit_and(load_u8(sc), set1_i(kMask));
  const I by = add(shl(index, kStep / 2), set1_i(kCommonZero - kFirst));
  const I bytes = shuffle_bytes(by, repeat_16_bytes(kFirstBytes));
  even = add(even, bytes);
  odd = add(odd, bytes);
}

struct E2Layout {
  static constexpr int kTileBytes = sizeof(TileE2_16);
  static constexpr int kGroups = 2;
  static constexpr int kZero = kCommonZero;
  static constexpr int kScaleMask = kE2ZeroMask;
  static EDGE_MEMBER_INLINE void quads(const uint8_t* packed, int j, I& even, I& odd) {
    const uint8_t* sc = packed + kTileRows * (j / 2);
    quads_e2(packed + 2 * kTileRows, j, even, odd);
    move_to_common_zero<kE2Zero, kE2ZeroStep, kE2ZeroMask>(sc, even, odd);
  }
};
struct E3Layout {
  static constexpr int kTileBytes = sizeof(TileE3_32);
  static constexpr int kGroups = 1;
  static constexpr int kZero = kCommonZero;
  static constexpr int kScaleMask = kE3ZeroMask;
  static EDGE_MEMBER_INLINE void quads(const uint8_t* packed, int j, I& even, I& odd) {
    quads_e3(packed + kTileRows, j, even, odd);
    move_to_common_zero<kE3Zero, kE3ZeroStep, kE3ZeroMask>(packed, even, odd);
  }
};
template <class PackedTile, int kGroupsOf>
struct E4Layout {
  static constexpr int kTileBytes = sizeof(PackedTile);
  static constexpr int kGroups = kGroupsOf;
  static constexpr int kZero = kLutE4Zero;
  static constexpr int kScaleMask = 1;

  // LUT 1 = LUT 0 + 2, for rows whose scale byte is odd.
  static EDGE_MEMBER_INLINE void quads(const uint8_t* packed, int j, I& even, I& odd) {
    const I sc = load_u8(packed + kTileRows * (j * kGroups / 4));
    const I is_odd = sub(zero_i(), bit_and(sc, set1_i(1)));
    const I shift = bit_and(is_odd, set1_i(kLutE4Shift * 0x01010101));
    quads_e4(packed + kTileRows * kGroups, j, even, odd);
    even = add(even, shift);  // bytes stay below 128, so no carry
    odd = add(odd, shift);
  }
};
struct E6Layout {
  static constexpr int kTileBytes = sizeof(TileE6_16);
  static constexpr int kGroups = 2;
  static constexpr int kZero = kE6Zero;
  static constexpr int kScaleMask = 1;
  static EDGE_MEMBER_INLINE void quads(const uint8_t* packed, int j, I& even, I& odd) {
    quads_e6(packed + 2 * kTileRows, j, even, odd);
  }
};
struct E8Layout {
  static constexpr int kTileBytes = sizeof(TileE8_32);
  static constexpr int kGroups = 1;
  static constexpr int kZero = kE8Zero;
  static constexpr int kScaleMask = 1;
  static EDGE_MEMBER_INLINE void quads(const uint8_t* packed, int j, I& even, I& odd) {
    even = load_64_bytes(packed + kTileRows + 128 * j);
    odd = load_64_bytes(packed + kTileRows + 128 * j + 64);
  }
};
struct L8Layout {
  static constexpr int kTileBytes = sizeof(TileL8_32);
  static constexpr int kGroups = 1;
  static constexpr int kZero = kL8Zero;
  static EDGE_MEMBER_INLINE V scales(const uint8_t* packed) {
    return load_f16(reinterpret_cast<const uint16_t*>(packed));
  }
  static EDGE_MEMBER_INLINE void quads(const uint8_t* packed, int j, I& even, I& odd) {
    even = load_64_bytes(packed + 2 * kTileRows + 128 * j);
    odd = load_64_bytes(packed + 2 * kTileRows + 128 * j + 64);
  }
};

using E2_16 = VnniFormat<E2Layout>;
using E3_32 = VnniFormat<E3Layout>;
using E4_16 = VnniFormat<E4Layout<TileE4_16, 2>>;
using E4_32 = VnniFormat<E4Layout<TileE4_32, 1>>;
using E6_16 = VnniFormat<E6Layout>;
using E8_32 = VnniFormat<E8Layout>;
using L8_32 = VnniFormat<L8Layout>;
