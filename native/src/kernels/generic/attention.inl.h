// Attention kernels, written once on vec16.h, quads.h and generic/math.inl.h, included inside each
// ISA's namespace. kernels/attention.h gives the contract.
#include "kernels/generic/rows.inl.h"

namespace {

constexpr int kLanes = 16;
static_assert(kPageTokens == kLanes);

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

// Pages of a segment that a query sees, both included. Pages are read two at a time, so that one
// chain of sums hides another; for one that is not seen another stands in.
struct SeenPages {
  int first;
  int last;
};
EDGE_INLINE int stand_in(const SeenPages& seen, int page) {
  const int at_least = page < seen.first ? seen.first : page;
  return at_least < seen.last ? at_least : seen.last;
}

// Scores of all 32 positions of the pages `page` and page + 1 for kQ queries; positions that a
// query does not see get values that are never read. Fetches the pages' values and the next ones'
// keys meanwhile: the hardware prefetcher stops where a page of keys does.
template <int kQ>
EDGE_INLINE void pair_scores_f16(const AttentionSegmentArgs& args, const SeenPages& seen, int page,
                                 float (*scores)[kSegmentTokens]) {
  constexpr int kLineHalves = 32;
  const int pages[] = {stand_in(seen, page), stand_in(seen, page + 1)};
  const uint16_t* low_keys = page_halves(args, pages[0], args.kv.keys);
  const uint16_t* high_keys = page_halves(args, pages[1], args.kv.keys);
  V sum[kQ][2];
  for (int i = 0; i < kQ; ++i) sum[i][0] = sum[i][1] = zero();
  int dim = 0;
  for (int half = 0; half < 2; ++half) {
    const uint16_t* next = page_halves(args, stand_in(seen, page + 2 + half), args.kv.keys);
    const uint16_t* values = page_halves(args, pages[half], args.kv.values);
    const int end = (half + 1) * args.kv.head_dim / 2;
    for (; dim < end; ++dim, next += kLineHalves, values += kLineHalves) {
      EDGE_PREFETCH(next);
      EDGE_PREFETCH(values);
      const V low = load_f16(low_keys + dim * kLanes);
      const V high = load_f16(high_keys + dim * kLanes);
      for (int i = 0; i < kQ; ++i) {
        const V q = set1(args.q[i][dim]);
        sum[i][0] = fma(q, low, sum[i][0]);
        sum[i][1] = fma(q, high, sum[i][1]);
      }
    }
  }
  const V scale = set1(args.scale);
  for (int i = 0; i < kQ; ++i) {
    float* out = scores[i] + page * kPageTokens;
    store(out, mul(sum[i][0], scale));
    store(out + kLanes, mul(sum[i][1], scale));
  }
}

template <int kQ>
EDGE_INLINE void scores_f16(const AttentionSegmentArgs& args, const SeenPages& seen,
                            float (*scores)[kSegmentTokens]) {
  for (int page = seen.first & -2; page <= seen.last; page += 2) {
    pair_scores_f16<kQ>(args, seen, page, scores);
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
  const int n_columns = kIsWhole ? kLanes : args.kv.head_dim - column;
  while (first < last) {
    const int page_end = (first / kPageTokens + 1) * kPageTokens;
    const int end = page_end < last ? page_end : last;
    const uint16_t* row = page_halves(args, first / kPageTokens, args.kv.values) +
                          (first % kPageTokens) * args.kv.head_dim + column;
    for (int t = first; t < end; ++t, row += args.kv.head_dim) {
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
        store_n(args.o[i] + at, sum[i][b], args.kv.head_dim - at);
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

#include "kernels/generic/integer_attention.inl.h"

template <int kQ>
void segment_queries(AttentionSegmentArgs& args) {
  alignas(64) float scores[kQ][kSegmentTokens];
  int n_visible = 0;
  for (int i = 0; i < kQ; ++i) {
    if (args.n_visible[i] > n_visible) n_visible = args.n_visible[i];
  }
  const SeenPages seen = {args.first / kPageTokens, (n_visible - 1) / kPageTokens};
  if (args.kv.key_bits == 16) {
    scores_f16<kQ>(args, seen, scores);
  } else {
    integer_scores<kQ>(args, seen, scores);
  }
  for (int i = 0; i < kQ; ++i) {
    if (args.softcap > 0) cap_scores(scores[i], args.first, args.n_visible[i], args.softcap);
    softmax_parts(scores[i], args.first, args.n_visible[i], &args.m[i], &args.l[i]);
  }
  if (args.kv.value_bits == 16) {
    weighted_columns<kQ>(args, scores, 0, args.kv.head_dim);
  } else {
    all_integer_values<kQ>(args, seen, scores);
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
