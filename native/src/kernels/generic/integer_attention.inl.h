// Attention over keys and values of 8 bits and fewer, included in generic/attention.inl.h.

constexpr int kMaxQuads = kMaxHeadDim / 4;
constexpr int kPlaneBytes = 4 * kPageTokens;  // of keys: four bytes of each position
constexpr int kZeroOf8Bits = 128;

constexpr int kRowsOfFour = kPageTokens / 4;  // of values in a page
constexpr int kMostUnpacked = 32;             // channels of values, which share a scale

EDGE_INLINE I load_bytes(const uint8_t* p) { return load_i(reinterpret_cast<const int32_t*>(p)); }
EDGE_INLINE void store_bytes(uint8_t* p, I x) { store_i(reinterpret_cast<int32_t*>(p), x); }

// Keys of 6 bits of a page to those of 8. What is unpacked here stays in the first cache; kernels
// of their own for fewer bits would save that way and double the code.
void unpack_keys(const uint8_t* planes, int head_dim, uint8_t* quads) {
  const I low = set1_i(0x3f3f3f3f), zero_point = set1_i(0x60606060);  // k + 32 to k + 128
  for (int dim = 0; dim < head_dim; dim += 16) {
    const I a = load_bytes(planes);
    const I b = load_bytes(planes + kPlaneBytes);
    const I c = load_bytes(planes + 2 * kPlaneBytes);
    const I top = bit_or(
        bit_and(shr(a, 6), set1_i(0x03030303)),
        bit_or(bit_and(shr(b, 4), set1_i(0x0c0c0c0c)), bit_and(shr(c, 2), set1_i(0x30303030))));
    store_bytes(quads, add(bit_and(a, low), zero_point));
    store_bytes(quads + kPlaneBytes, add(bit_and(b, low), zero_point));
    store_bytes(quads + 2 * kPlaneBytes, add(bit_and(c, low), zero_point));
    store_bytes(quads + 3 * kPlaneBytes, add(top, zero_point));
    planes += 3 * kPlaneBytes;
    quads += 4 * kPlaneBytes;
  }
}

// Values of 4 bits of a page, n_pairs times 32 channels of each row, to those of 8.
void unpack_values(const uint8_t* halves, int row_bytes, int n_pairs, uint8_t* rows) {
  const I low = set1_i(0x0f0f0f0f), zero_point = set1_i(0x78787878);  // v + 8 to v + 128
  for (int row = 0; row < kRowsOfFour; ++row, halves += row_bytes) {
    for (int pair = 0; pair < n_pairs; ++pair, rows += 128) {
      const I x = load_bytes(halves + 64 * pair);
      store_bytes(rows, add(bit_and(x, low), zero_point));
      store_bytes(rows + 64, add(bit_and(shr(x, 4), low), zero_point));
    }
  }
}

// Keys of 8 bits of kScoreVectors pages, and those of the next ones, which are fetched meanwhile:
// two lines per quad, so where it is one page, its values, too, which follow.
struct KeyPages {
  const uint8_t* keys[kScoreVectors];
  const uint16_t* scales[kScoreVectors];
  const uint8_t* ahead[kScoreVectors];
};

// Scores as pair_scores_f16() gives them, of kScoreVectors pages from `page` on. quads: of each
// query, as prepare_quad() made them.
template <int kQ>
EDGE_INLINE void page_scores(const AttentionSegmentArgs& args, int page, const KeyPages& from,
                             const int32_t (*quads)[kMaxQuads * kQuadWords],
                             float (*scores)[kSegmentTokens]) {
  V score[kQ][kScoreVectors];
  EDGE_UNROLL
  for (int i = 0; i < kQ; ++i) {
    EDGE_UNROLL
    for (int v = 0; v < kScoreVectors; ++v) score[i][v] = zero();
  }
  int quad = 0;
  for (int begin = 0, group = 0; begin < args.kv.head_dim; begin += args.kv.key_channels, ++group) {
    const int left = args.kv.head_dim - begin;
    const int end = left < args.kv.key_channels ? args.kv.head_dim : begin + args.kv.key_channels;
    I dots[kQ][kScoreVectors];
    EDGE_UNROLL
    for (int i = 0; i < kQ; ++i) {
      EDGE_UNROLL
      for (int v = 0; v < kScoreVectors; ++v) {
        dots[i][v] = set1_i((kQuadOffset - kZeroOf8Bits) * args.q8[i].sum[group]);
      }
    }
    for (; 4 * quad < end; ++quad) {
      EDGE_UNROLL
      for (int line = 0; line < 2; ++line) {
        const int at = kScoreVectors == 1 ? 2 * quad + line : quad;
        EDGE_PREFETCH(from.ahead[line % kScoreVectors] + at * kPlaneBytes);
      }
      Quads k[kScoreVectors];
      EDGE_UNROLL
      for (int v = 0; v < kScoreVectors; ++v) {
        k[v] = load_quads(from.keys[v] + quad * kPlaneBytes);
      }
      EDGE_UNROLL
      for (int i = 0; i < kQ; ++i) {
        EDGE_UNROLL
        for (int v = 0; v < kScoreVectors; ++v) {
          dots[i][v] = dot(dots[i][v], k[v], quads[i] + quad * kQuadWords);
        }
      }
    }
    EDGE_UNROLL
    for (int v = 0; v < kScoreVectors; ++v) {
      const V key_scale = load_f16(from.scales[v] + group * kPageTokens);
      EDGE_UNROLL
      for (int i = 0; i < kQ; ++i) {
        const V step = mul(set1(args.q8[i].scale[group]), key_scale);
        score[i][v] = fma(to_float(dots[i][v]), step, score[i][v]);
      }
    }
  }
  const V scale = set1(args.scale);
  for (int i = 0; i < kQ; ++i) {
    float* out = scores[i] + page * kPageTokens;
    EDGE_UNROLL
    for (int v = 0; v < kScoreVectors; ++v) store(out + kLanes * v, mul(score[i][v], scale));
  }
}

template <int kQ>
EDGE_INLINE void integer_scores(const AttentionSegmentArgs& args, const SeenPages& seen,
                                float (*scores)[kSegmentTokens]) {
  alignas(64) int32_t quads[kQ][kMaxQuads * kQuadWords];
  alignas(64) uint8_t unpacked[kScoreVectors][kMaxQuads * kPlaneBytes];
  for (int i = 0; i < kQ; ++i) {
    for (int quad = 0; 4 * quad < args.kv.head_dim; ++quad) {
      prepare_quad(args.q8[i].q + 4 * quad, quads[i] + quad * kQuadWords);
    }
  }
  for (int page = seen.first & -kScoreVectors; page <= seen.last; page += kScoreVectors) {
    KeyPages from;
    EDGE_UNROLL
    for (int v = 0; v < kScoreVectors; ++v) {
      const uint8_t* bytes = args.pages[kScoreVectors == 1 ? page : stand_in(seen, page + v)];
      from.keys[v] = bytes + args.kv.keys;
      from.scales[v] = reinterpret_cast<const uint16_t*>(bytes + args.kv.key_scales);
      from.ahead[v] = args.pages[stand_in(seen, page + kScoreVectors + v)] + args.kv.keys;
      if (args.kv.key_bits == 8) continue;
      unpack_keys(from.keys[v], args.kv.head_dim, unpacked[v]);
      from.keys[v] = unpacked[v];
    }
    page_scores<kQ>(args, page, from, quads, scores);
  }
}

// Weights of one scale group as integers: w = p * value scale of what a query sees, over the
// largest of them times 32767. Returns what a product with them is to be multiplied with.
EDGE_INLINE float integer_weights(const AttentionSegmentArgs& args, const float* p, int query,
                                  int group, const SeenPages& seen, int16_t* weights,
                                  int32_t* total) {
  const int first = args.first, end = args.n_visible[query];
  float w[kSegmentTokens];
  V largest = zero();
  for (int page = seen.first; page <= seen.last; ++page) {
    const uint16_t* scales = page_halves(args, page, args.kv.value_scales) + group * kPageTokens;
    const int t = page * kPageTokens;
    V x = mul(load(p + t), load_f16(scales));
    if (t < first || t + kLanes > end) x = select(seen_lanes(t, first, end), x, zero());
    store(w + t, x);
    largest = max(abs(x), largest);
  }
  constexpr float kLevels = 32767.0f;
  const float top = as_float(reduce_max_i(as_i(largest)));
  const bool is_zero = top < 0x1p-100f;
  const V inverse = set1(is_zero ? 0.0f : kLevels / top);
  I sum = zero_i();
  for (int t = seen.first * kPageTokens; t < (seen.last + 1) * kPageTokens; t += kLanes) {
    const I level = to_int(mul(load(w + t), inverse));
    store_i16(weights + t, level);
    sum = add(sum, level);
  }
  *total = reduce_add_i(sum);
  return is_zero ? 0.0f : top / kLevels;
}

// Rows of four positions of values of 8 bits, of all pages of a segment. pages: of which column
// `first_column` is at the beginning.
struct ValueRows {
  const uint8_t* pages[kSegmentTokens / kPageTokens];
  int row_bytes;
  int first_column;
};

// o of kQ queries for kBlocks blocks of 16 columns: exact sums over all positions.
template <int kQ, int kBlocks>
EDGE_INLINE void integer_values(const AttentionSegmentArgs& args, const ValueRows& rows,
                                const SeenPages& seen, const int16_t (*weights)[kSegmentTokens],
                                const int32_t* totals, const float* steps, int column) {
  I sum[kQ][kBlocks];
  EDGE_UNROLL
  for (int i = 0; i < kQ; ++i) {
    EDGE_UNROLL
    for (int b = 0; b < kBlocks; ++b) sum[i][b] = set1_i(-kZeroOf8Bits * totals[i]);
  }
  for (int page = seen.first; page <= seen.last; ++page) {
    const uint8_t* row = rows.pages[page] + 4 * (column - rows.first_column);
    for (int quad = 0; quad < kRowsOfFour; ++quad, row += rows.row_bytes) {
      const int t = page * kPageTokens + 4 * quad;
      Words v[kBlocks];
      EDGE_UNROLL
      for (int b = 0; b < kBlocks; ++b) v[b] = load_words(row + 4 * kLanes * b);
      EDGE_UNROLL
      for (int i = 0; i < kQ; ++i) {
        EDGE_UNROLL
        for (int b = 0; b < kBlocks; ++b) sum[i][b] = dot_words(sum[i][b], v[b], weights[i] + t);
      }
    }
  }
  EDGE_UNROLL
  for (int i = 0; i < kQ; ++i) {
    EDGE_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      const int at = column + kLanes * b;
      const int n = args.kv.head_dim - at < kLanes ? args.kv.head_dim - at : kLanes;
      store_some(args.o[i] + at, mul(to_float(sum[i][b]), set1(steps[i])), n);
    }
  }
}

// Rows that have at least the columns [begin, end), of a group; `unpacked` is room for them.
ValueRows value_rows(const AttentionSegmentArgs& args, const SeenPages& seen, int begin, int end,
                     uint8_t* unpacked) {
  ValueRows rows;
  const bool is_packed = args.kv.value_bits < 8;
  rows.first_column = is_packed ? begin & -32 : 0;
  const int n_pairs = (end - rows.first_column + 31) / 32;
  rows.row_bytes = is_packed ? 128 * n_pairs : args.kv.value_row_bytes;
  for (int page = seen.first; page <= seen.last; ++page) {
    const uint8_t* values = args.pages[page] + args.kv.values;
    rows.pages[page] = values;
    if (!is_packed) continue;
    rows.pages[page] = unpacked;
    unpack_values(values + 2 * rows.first_column, args.kv.value_row_bytes, n_pairs, unpacked);
    unpacked += kRowsOfFour * rows.row_bytes;
  }
  return rows;
}

template <int kQ>
EDGE_INLINE void all_integer_values(const AttentionSegmentArgs& args, const SeenPages& seen,
                                    const float (*p)[kSegmentTokens]) {
  constexpr int kBlocks = kValueSums / kQ >= 4 ? 4 : kValueSums / kQ >= 2 ? 2 : 1;
  alignas(64) int16_t weights[kQ][kSegmentTokens];
  alignas(64) uint8_t unpacked[kSegmentTokens * kMostUnpacked];
  int32_t totals[kQ];
  float steps[kQ];
  const int channels = args.kv.value_channels;
  for (int begin = 0, group = 0; begin < args.kv.head_dim; begin += channels, ++group) {
    for (int i = 0; i < kQ; ++i) {
      steps[i] = integer_weights(args, p[i], i, group, seen, weights[i], totals + i);
    }
    const int left = args.kv.head_dim - begin;
    const int end = begin + (left < channels ? left : channels);
    const ValueRows rows = value_rows(args, seen, begin, end, unpacked);
    int column = begin;
    for (; column + kBlocks * kLanes <= end; column += kBlocks * kLanes) {
      integer_values<kQ, kBlocks>(args, rows, seen, weights, totals, steps, column);
    }
    for (; column < end; column += kLanes) {
      integer_values<kQ, 1>(args, rows, seen, weights, totals, steps, column);
    }
  }
}
