// Attention kernels, written once on vec16.h, quads.h and generic/math.inl.h, included inside each
// ISA's namespace. kernels/attention.h gives the contract.
#include "kernels/generic/rows.inl.h"

namespace {

constexpr int kLanes = 16;
constexpr int kPagePositions = kPageTokens;
constexpr int kMaxQuads = kMaxHeadDim / 4;
constexpr int kZeroOfK8 = 128;
constexpr int kZeroOfV8 = 128;

EDGE_INLINE float as_float(int32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

EDGE_INLINE I lane_numbers() {
  static constexpr int32_t kNumbers[kLanes] = {0, 1, 2,  3,  4,  5,  6,  7,
                                               8, 9, 10, 11, 12, 13, 14, 15};
  return load_i(kNumbers);
}

EDGE_INLINE const uint16_t* page_halves(const AttentionSegmentArgs& args, int page, size_t part) {
  return reinterpret_cast<const uint16_t*>(args.pages[page] + part);
}

// Scores of all 32 positions of a page for kQ queries; positions that a query does not see get
// values that are never read. Fetches the page's values and the next page's keys meanwhile: the
// hardware prefetcher stops where a page of keys does.
template <int kQ>
EDGE_INLINE void page_scores_f16(const AttentionSegmentArgs& args, int page, int next_page,
                                 float (*scores)[kSegmentTokens]) {
  const uint16_t* keys = page_halves(args, page, args.parts.keys);
  const uint16_t* next_keys = page_halves(args, next_page, args.parts.keys);
  const uint16_t* values = page_halves(args, page, args.parts.values);
  V sum[kQ][2];
  for (int i = 0; i < kQ; ++i) sum[i][0] = sum[i][1] = zero();
  for (int dim = 0; dim < args.head_dim; ++dim) {
    const int at = dim * kPagePositions;
    EDGE_PREFETCH(next_keys + at);
    EDGE_PREFETCH(values + at);
    const V low = load_f16(keys + at);
    const V high = load_f16(keys + at + kLanes);
    for (int i = 0; i < kQ; ++i) {
      const V q = set1(args.q[i][dim]);
      sum[i][0] = fma(q, low, sum[i][0]);
      sum[i][1] = fma(q, high, sum[i][1]);
    }
  }
  const V scale = set1(args.scale);
  for (int i = 0; i < kQ; ++i) {
    float* out = scores[i] + page * kPagePositions;
    store(out, mul(sum[i][0], scale));
    store(out + kLanes, mul(sum[i][1], scale));
  }
}

// The same with int8 keys, for kScoreVectors times 16 positions from `slot` on. quads: of each
// query, as prepare_quad() made them. prefetch: bytes of which a line is fetched per quad of keys.
template <int kQ>
EDGE_INLINE void page_scores_k8(const AttentionSegmentArgs& args, int page, int slot,
                                const int32_t (*quads)[kMaxQuads * kQuadWords],
                                const uint8_t* prefetch, float (*scores)[kSegmentTokens]) {
  constexpr int kQuadBytes = 4 * kPagePositions;
  const uint8_t* keys = args.pages[page] + args.parts.keys + 4 * slot;
  const uint16_t* key_scales = page_halves(args, page, args.parts.key_scales) + slot;
  V score[kQ][kScoreVectors];
  EDGE_UNROLL
  for (int i = 0; i < kQ; ++i) {
    EDGE_UNROLL
    for (int v = 0; v < kScoreVectors; ++v) score[i][v] = zero();
  }
  int quad = 0;
  for (int begin = 0, group = 0; begin < args.head_dim; begin += args.scale_channels, ++group) {
    const int end =
        args.head_dim - begin < args.scale_channels ? args.head_dim : begin + args.scale_channels;
    I dots[kQ][kScoreVectors];
    EDGE_UNROLL
    for (int i = 0; i < kQ; ++i) {
      EDGE_UNROLL
      for (int v = 0; v < kScoreVectors; ++v) {
        dots[i][v] = set1_i((kQuadOffset - kZeroOfK8) * args.q8[i].sum[group]);
      }
    }
    for (; 4 * quad < end; ++quad) {
      EDGE_PREFETCH(prefetch + quad * kQuadBytes);
      EDGE_PREFETCH(prefetch + quad * kQuadBytes + kQuadBytes / 2);
      Quads k[kScoreVectors];
      EDGE_UNROLL
      for (int v = 0; v < kScoreVectors; ++v) {
        k[v] = load_quads(keys + quad * kQuadBytes + 4 * kLanes * v);
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
      const V key_scale = load_f16(key_scales + group * kPagePositions + kLanes * v);
      EDGE_UNROLL
      for (int i = 0; i < kQ; ++i) {
        const V step = mul(set1(args.q8[i].scale[group]), key_scale);
        score[i][v] = fma(to_float(dots[i][v]), step, score[i][v]);
      }
    }
  }
  const V scale = set1(args.scale);
  for (int i = 0; i < kQ; ++i) {
    float* out = scores[i] + page * kPagePositions + slot;
    EDGE_UNROLL
    for (int v = 0; v < kScoreVectors; ++v) store(out + kLanes * v, mul(score[i][v], scale));
  }
}

template <int kQ>
EDGE_INLINE void scores_f16(const AttentionSegmentArgs& args, int last_page,
                            float (*scores)[kSegmentTokens]) {
  for (int page = args.first / kPagePositions; page <= last_page; ++page) {
    page_scores_f16<kQ>(args, page, page < last_page ? page + 1 : page, scores);
  }
}

template <int kQ>
EDGE_INLINE void scores_k8(const AttentionSegmentArgs& args, int last_page,
                           float (*scores)[kSegmentTokens]) {
  alignas(64) int32_t quads[kQ][kMaxQuads * kQuadWords];
  for (int i = 0; i < kQ; ++i) {
    for (int quad = 0; 4 * quad < args.head_dim; ++quad) {
      prepare_quad(args.q8[i].q + 4 * quad, quads[i] + quad * kQuadWords);
    }
  }
  for (int page = args.first / kPagePositions; page <= last_page; ++page) {
    const uint8_t* next = args.pages[page < last_page ? page + 1 : page] + args.parts.keys;
    page_scores_k8<kQ>(args, page, 0, quads, next, scores);
    if constexpr (kScoreVectors == 1) {
      const uint8_t* values = args.pages[page] + args.parts.values;
      page_scores_k8<kQ>(args, page, kLanes, quads, values, scores);
    }
  }
}

// Of the positions t..t + 15, those in [first, end).
EDGE_INLINE M seen_lanes(int t, int first, int end) {
  const I at = add(lane_numbers(), set1_i(t));
  return mask_and(cmp_lt(at, set1_i(end)), mask_not(cmp_lt(at, set1_i(first))));
}

// The scores around positions [first, end) of one query, capped.
void cap_scores(float* scores, int first, int end, float cap) {
  for (int t = first / kLanes * kLanes; t < end; t += kLanes) {
    store(scores + t, softcapped(load(scores + t), set1(cap)));
  }
}

// scores -> exp(scores - m) in place, 0 around the positions [first, end); m and l of one query.
void softmax_parts(float* scores, int first, int end, float* m, float* l) {
  const V lowest = set1(-3.402823466e38f);
  const int begin = first / kLanes * kLanes;
  V largest = lowest;
  int t = begin;
  if (t < first) {
    largest = max(select(seen_lanes(t, first, end), load(scores + t), lowest), largest);
    t += kLanes;
  }
  for (; t + kLanes <= end; t += kLanes) largest = max(load(scores + t), largest);
  if (t < end) largest = max(select(seen_lanes(t, first, end), load(scores + t), lowest), largest);
  float lanes[kLanes];
  store(lanes, largest);
  float top = lanes[0];
  for (int i = 1; i < kLanes; ++i) top = lanes[i] > top ? lanes[i] : top;
  V sum = zero();
  const V shift = set1(top);
  t = begin;
  if (t < first) {
    sum = select(seen_lanes(t, first, end), exp(sub(load(scores + t), shift)), zero());
    store(scores + t, sum);
    t += kLanes;
  }
  for (; t + kLanes <= end; t += kLanes) {
    const V p = exp(sub(load(scores + t), shift));
    store(scores + t, p);
    sum = add(sum, p);
  }
  if (t < end) {
    const V p = select(seen_lanes(t, first, end), exp(sub(load(scores + t), shift)), zero());
    store(scores + t, p);
    sum = add(sum, p);
  }
  *m = top;
  *l = reduce_add(sum);
}

// 16 values of a row, of which the head has n; short rows are copied so that nothing past the page
// is read.
EDGE_INLINE V load_values(const uint16_t* values, int n) {
  if (n >= kLanes) return load_f16(values);
  uint16_t padded[kLanes] = {};
  for (int i = 0; i < n; ++i) padded[i] = values[i];
  return load_f16(padded);
}

// sum[i][block] += p[i][t] * value[t], for positions [first, last) of the segment in ascending
// order.
template <int kQ, int kBlocks, bool kIsWhole>
EDGE_INLINE void add_values(const AttentionSegmentArgs& args, const float* const* p, int first,
                            int last, int column, V (*sum)[kBlocks]) {
  const int n_columns = kIsWhole ? kLanes : args.head_dim - column;
  while (first < last) {
    const int page_end = (first / kPagePositions + 1) * kPagePositions;
    const int end = page_end < last ? page_end : last;
    const uint16_t* row = page_halves(args, first / kPagePositions, args.parts.values) +
                          (first % kPagePositions) * args.head_dim + column;
    for (int t = first; t < end; ++t, row += args.head_dim) {
      V weight[kQ];
      EDGE_UNROLL
      for (int i = 0; i < kQ; ++i) weight[i] = set1(p[i][t]);
      EDGE_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        const V v = load_values(row + kLanes * b, n_columns);
        EDGE_UNROLL
        for (int i = 0; i < kQ; ++i) sum[i][b] = fma(weight[i], v, sum[i][b]);
      }
    }
    first = end;
  }
}

// o of kQ queries for kBlocks blocks of 16 columns: the positions all of them see together, then
// each one's own rest. The order of positions is the same for a query in any company.
template <int kQ, int kBlocks, bool kIsWhole>
EDGE_INLINE void weighted_values(const AttentionSegmentArgs& args, const float (*p)[kSegmentTokens],
                                 int column) {
  V sum[kQ][kBlocks];
  const float* weights[kQ];
  int n_common = args.n_visible[0];
  for (int i = 0; i < kQ; ++i) {
    weights[i] = p[i];
    if (args.n_visible[i] < n_common) n_common = args.n_visible[i];
    for (int b = 0; b < kBlocks; ++b) sum[i][b] = zero();
  }
  add_values<kQ, kBlocks, kIsWhole>(args, weights, args.first, n_common, column, sum);
  EDGE_UNROLL
  for (int i = 0; i < kQ; ++i) {
    add_values<1, kBlocks, kIsWhole>(args, &weights[i], n_common, args.n_visible[i], column,
                                     &sum[i]);
  }
  EDGE_UNROLL
  for (int i = 0; i < kQ; ++i) {
    EDGE_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      const int at = column + kLanes * b;
      if (kIsWhole) {
        store(args.o[i] + at, sum[i][b]);
      } else {
        store_n(args.o[i] + at, sum[i][b], args.head_dim - at);
      }
    }
  }
}

// Columns [column, end) of o, as many at a time as there are registers for.
template <int kQ>
EDGE_INLINE void weighted_columns(const AttentionSegmentArgs& args,
                                  const float (*p)[kSegmentTokens], int column, int end) {
  constexpr int kBlocks = kValueSums / kQ >= 4 ? 4 : kValueSums / kQ >= 2 ? 2 : 1;
  for (; column + kBlocks * kLanes <= end; column += kBlocks * kLanes) {
    weighted_values<kQ, kBlocks, true>(args, p, column);
  }
  if constexpr (kBlocks > 1) {
    for (; column + kLanes <= end; column += kLanes) {
      weighted_values<kQ, 1, true>(args, p, column);
    }
  }
  if (column < end) weighted_values<kQ, 1, false>(args, p, column);
}

// Weights of one scale group as integers: w = p * value scale of what a query sees, over the
// largest of them times 32767. Returns what a product with them is to be multiplied with.
EDGE_INLINE float integer_weights(const AttentionSegmentArgs& args, const float* p, int query,
                                  int group, int last_page, int16_t* weights, int32_t* total) {
  const int first_page = args.first / kPagePositions;
  const int first = args.first, end = args.n_visible[query];
  float w[kSegmentTokens];
  V largest = zero();
  for (int page = first_page; page <= last_page; ++page) {
    const uint16_t* scales =
        page_halves(args, page, args.parts.value_scales) + group * kPagePositions;
    for (int slot = 0; slot < kPagePositions; slot += kLanes) {
      const int t = page * kPagePositions + slot;
      V x = mul(load(p + t), load_f16(scales + slot));
      if (t < first || t + kLanes > end) x = select(seen_lanes(t, first, end), x, zero());
      store(w + t, x);
      largest = max(x, largest);
    }
  }
  constexpr float kLevels = 32767.0f;
  const float top = as_float(reduce_max_i(as_i(largest)));
  const bool is_zero = top < 0x1p-100f;
  const V inverse = set1(is_zero ? 0.0f : kLevels / top);
  I sum = zero_i();
  for (int t = first_page * kPagePositions; t < (last_page + 1) * kPagePositions; t += kLanes) {
    const I level = to_int(mul(load(w + t), inverse));
    store_i16(weights + t, level);
    sum = add(sum, level);
  }
  *total = reduce_add_i(sum);
  return is_zero ? 0.0f : top / kLevels;
}

// o of kQ queries for kBlocks blocks of 16 columns: exact sums over all positions.
template <int kQ, int kBlocks>
EDGE_INLINE void integer_values(const AttentionSegmentArgs& args, int last_page,
                                const int16_t (*weights)[kSegmentTokens], const int32_t* totals,
                                const float* steps, int column) {
  const int row_bytes = 4 * ((args.head_dim + kLanes - 1) & -kLanes);
  I sum[kQ][kBlocks];
  EDGE_UNROLL
  for (int i = 0; i < kQ; ++i) {
    EDGE_UNROLL
    for (int b = 0; b < kBlocks; ++b) sum[i][b] = set1_i(-kZeroOfV8 * totals[i]);
  }
  for (int page = args.first / kPagePositions; page <= last_page; ++page) {
    const uint8_t* row = args.pages[page] + args.parts.values + 4 * column;
    for (int quad = 0; quad < kPagePositions / 4; ++quad, row += row_bytes) {
      const int t = page * kPagePositions + 4 * quad;
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
      const int n = args.head_dim - at < kLanes ? args.head_dim - at : kLanes;
      store_some(args.o[i] + at, mul(to_float(sum[i][b]), set1(steps[i])), n);
    }
  }
}

template <int kQ>
EDGE_INLINE void values_v8(const AttentionSegmentArgs& args, int last_page,
                           const float (*p)[kSegmentTokens]) {
  constexpr int kBlocks = kValueSums / kQ >= 4 ? 4 : kValueSums / kQ >= 2 ? 2 : 1;
  alignas(64) int16_t weights[kQ][kSegmentTokens];
  int32_t totals[kQ];
  float steps[kQ];
  for (int begin = 0, group = 0; begin < args.head_dim; begin += args.scale_channels, ++group) {
    for (int i = 0; i < kQ; ++i) {
      steps[i] = integer_weights(args, p[i], i, group, last_page, weights[i], totals + i);
    }
    const int n =
        args.head_dim - begin < args.scale_channels ? args.head_dim - begin : args.scale_channels;
    int column = begin;
    for (; column + kBlocks * kLanes <= begin + n; column += kBlocks * kLanes) {
      integer_values<kQ, kBlocks>(args, last_page, weights, totals, steps, column);
    }
    for (; column < begin + n; column += kLanes) {
      integer_values<kQ, 1>(args, last_page, weights, totals, steps, column);
    }
  }
}

template <int kQ>
void segment_queries(AttentionSegmentArgs& args) {
  alignas(64) float scores[kQ][kSegmentTokens];
  int n_visible = 0;
  for (int i = 0; i < kQ; ++i) {
    if (args.n_visible[i] > n_visible) n_visible = args.n_visible[i];
  }
  const int last_page = (n_visible - 1) / kPagePositions;
  const bool is_f16 = args.format == KvFormat::kF16;
  if (is_f16) {
    scores_f16<kQ>(args, last_page, scores);
  } else {
    scores_k8<kQ>(args, last_page, scores);
  }
  for (int i = 0; i < kQ; ++i) {
    if (args.softcap > 0) cap_scores(scores[i], args.first, args.n_visible[i], args.softcap);
    softmax_parts(scores[i], args.first, args.n_visible[i], &args.m[i], &args.l[i]);
  }
  if (is_f16) {
    weighted_columns<kQ>(args, scores, 0, args.head_dim);
  } else {
    values_v8<kQ>(args, last_page, scores);
  }
}

#if defined(EDGE_SMALL)
// Two or three queries one by one: half the code.
void segment(AttentionSegmentArgs& args) {
  if (args.n_queries == kMaxQueries) return segment_queries<kMaxQueries>(args);
  for (int i = 0; i < args.n_queries; ++i) {
    AttentionSegmentArgs one = args;
    one.q[0] = args.q[i];
    one.q8[0] = args.q8[i];
    one.n_visible[0] = args.n_visible[i];
    one.o[0] = args.o[i];
    segment_queries<1>(one);
    args.m[i] = one.m[0];
    args.l[i] = one.l[0];
  }
}
#else
void segment(AttentionSegmentArgs& args) {
  switch (args.n_queries) {
    case 1:
      return segment_queries<1>(args);
    case 2:
      return segment_queries<2>(args);
    case 3:
      return segment_queries<3>(args);
    default:
      return segment_queries<4>(args);
  }
}
#endif

float first_lane(V x) {
  float lanes[kLanes];
  store(lanes, x);
  return lanes[0];
}

void merge(float* m, float* l, float* o, float m2, float l2, const float* o2, int head_dim) {
  const float top = *m > m2 ? *m : m2;
  const V scale1 = exp(set1(*m - top));
  const V scale2 = exp(set1(m2 - top));
  for (int i = 0; i < head_dim; i += kLanes) {
    const int n = head_dim - i < kLanes ? head_dim - i : kLanes;
    store_n(o + i, fma(load_n(o2 + i, n), scale2, mul(load_n(o + i, n), scale1)), n);
  }
  *l = first_lane(fma(set1(l2), scale2, mul(set1(*l), scale1)));
  *m = top;
}

void finish(const float* o, float l, int head_dim, float* out) {
  const V sum = set1(l);
  for (int i = 0; i < head_dim; i += kLanes) {
    const int n = head_dim - i < kLanes ? head_dim - i : kLanes;
    store_n(out + i, div(load_n(o + i, n), sum), n);
  }
}

}  // namespace
