// Paged attention with the CPU's sums (kernels/attention.h): a group makes a segment of up to 256
// positions for a few queries of one kv head, which share what it reads of keys and values: those
// of rows that follow each other, and of the heads that the kv head is for. A thread is a position
// for scores and a column for values; then a query's segments are merged in order. So a query has
// the same bits whatever others are beside it. A row in a tree of drafts (RowInput::tail) reads its
// slots where they are, and is alone. Included after a dialect.
#include "backends/gpu/scores.inl.h"
#include "backends/gpu/sums.inl.h"

namespace EDGE_DEVICE {

struct Span {
  int begin;
  int end;
};
EDGE_FN Span segment_at(bool has_first, int number) {
  if (!has_first) return {number * kSegmentTokens, (number + 1) * kSegmentTokens};
  if (number == 0) return {0, kFirstTokens};
  const int begin = (number - 1) * kSegmentTokens;
  return {begin < kFirstTokens ? kFirstTokens : begin, number * kSegmentTokens};
}

EDGE_FN Span seen_by(EDGE_GLOBAL const Row& row, int window) {
  return {window > 0 && row.n_seen > window ? row.n_seen - window : 0, row.n_seen};
}

// What a group's queries see of its segment.
template <int kQueries>
struct Asked {
  int n;
  int first_row, first_head;  // of query 0; the heads of a row follow each other, then the rows
  int heads_per_kv;
  int kv_head;
  int first[kQueries];  // places of positions in the segment; none: 0 to 0
  int end[kQueries];
  int from, to;  // what any of them sees

  EDGE_MEMBER_FN int row(int j) const { return first_row + (first_head + j) / heads_per_kv; }
  EDGE_MEMBER_FN int head(int j) const {
    return kv_head * heads_per_kv + (first_head + j) % heads_per_kv;
  }
  EDGE_MEMBER_FN bool sees(int j, int t) const { return t >= first[j] && t < end[j]; }
};

// The largest of each of n over the group; `warps`: a float for each of every warp.
template <int kQueries>
EDGE_FN void group_max(At at, int n, EDGE_LOCAL float* x, EDGE_GROUP float* warps) {
  EDGE_UNROLL
  for (int j = 0; j < kQueries; ++j) {
    if (j >= n) continue;
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
      const float other = EDGE_XOR_LANE(x[j], lanes);
      x[j] = other > x[j] ? other : x[j];
    }
    if (at.index % kWarp == 0) warps[j * kSegmentWarps + at.index / kWarp] = x[j];
  }
  EDGE_SYNC();
  EDGE_UNROLL
  for (int j = 0; j < kQueries; ++j) {
    if (j >= n) continue;
    EDGE_GROUP const float* of_query = warps + j * kSegmentWarps;
    x[j] = of_query[0];
    for (int i = 1; i < kSegmentWarps; ++i) x[j] = of_query[i] > x[j] ? of_query[i] : x[j];
  }
  EDGE_SYNC();
}

// What the group's threads have of a segment.
struct Segment {
  EDGE_GLOBAL const Page* table;
  KvPart head;
  EDGE_GROUP const int* slots;  // [kSegmentTokens]
  EDGE_GROUP const float* p;    // [][kSegmentTokens], by query
};
EDGE_FN EDGE_GLOBAL const uint8_t* page_of(EDGE_LOCAL const Segment& segment, int t) {
  return segment.table[segment.slots[t] / kPageTokens].bytes;
}
EDGE_FN int place_in(EDGE_LOCAL const Segment& segment, int t) {
  return segment.slots[t] % kPageTokens;
}

// (m, l, o[head_dim]) of a segment of a row.
EDGE_FN EDGE_GLOBAL float* partial_of(EDGE_ARGS AttentionArgs& args, int row, int head,
                                      int segment) {
  const int64_t r = row - args.row0;
  const int64_t at = (r * args.n_heads + head) * args.n_segments + segment;
  return args.partials + at * (2 + args.head_dim);
}
EDGE_FN EDGE_GLOBAL float* query_of(EDGE_ARGS AttentionArgs& args, int row, int head) {
  return args.q + row * args.q_stride + static_cast<int64_t>(head) * args.head_dim;
}

template <int kQueries>
EDGE_FN void add_f16_values(At at, EDGE_ARGS AttentionArgs& args, EDGE_LOCAL const Segment& segment,
                            EDGE_LOCAL const Asked<kQueries>& asked) {
  const int head_dim = segment.head.head_dim;
  for (int c = at.index; c < head_dim; c += kSegmentTokens) {
    float sums[kQueries] = {};
    for (int t = asked.from; t < asked.to; ++t) {
      const float v =
          half_in(page_of(segment, t), segment.head.values, place_in(segment, t) * head_dim + c);
      EDGE_UNROLL
      for (int j = 0; j < kQueries; ++j) {
        if (j < asked.n && asked.sees(j, t)) {
          sums[j] = fma_exact(segment.p[j * kSegmentTokens + t], v, sums[j]);
        }
      }
    }
    EDGE_UNROLL
    for (int j = 0; j < kQueries; ++j) {
      if (j >= asked.n || asked.first[j] == asked.end[j]) continue;
      partial_of(args, asked.row(j), asked.head(j), at.x)[2 + c] = sums[j];
    }
  }
}

EDGE_FN int value_level(EDGE_LOCAL const Segment& segment, int t, int c) {
  const int place = place_in(segment, t);
  EDGE_GLOBAL const uint8_t* row = page_of(segment, t) + segment.head.values +
                                   place / 4 * segment.head.value_row_bytes + value_byte(place);
  if (segment.head.value_bits == 8) return row[4 * c] - 128;
  const int byte = row[4 * (c / 32 * 16 + c % 16)];
  return (c % 32 < 16 ? byte & 15 : byte >> 4) - 8;
}

// Room for integer weights, [][kSegmentTokens] by query, and for parts of their sums.
struct IntegerRoom {
  EDGE_GROUP int16_t* weights;
  EDGE_GROUP int* sums;
  EDGE_GROUP float* warps;
};

// Weights of a scale group as integers; the steps between them to steps[].
template <int kQueries>
EDGE_FN void make_weights(At at, EDGE_LOCAL const Segment& segment,
                          EDGE_LOCAL const Asked<kQueries>& asked, IntegerRoom room, int group,
                          EDGE_LOCAL float* steps) {
  constexpr float kLevels = 32767.0f;
  const int t = at.index;
  const bool is_there = t >= asked.from && t < asked.to;
  const float scale = is_there ? half_in(page_of(segment, t), segment.head.value_scales,
                                         group * kPageTokens + place_in(segment, t))
                               : 0.0f;
  float w[kQueries], tops[kQueries];
  EDGE_UNROLL
  for (int j = 0; j < kQueries; ++j) {
    const bool is_seen = j < asked.n && asked.sees(j, t);
    w[j] = is_seen ? segment.p[j * kSegmentTokens + t] * scale : 0.0f;
    tops[j] = float_of(magnitude_bits(w[j]));
  }
  group_max<kQueries>(at, asked.n, tops, room.warps);
  EDGE_UNROLL
  for (int j = 0; j < kQueries; ++j) {
    if (j >= asked.n) continue;
    const bool is_zero = tops[j] < 0x1p-100f;
    room.weights[j * kSegmentTokens + t] =
        static_cast<int16_t>(scalar::lane_to_int(w[j] * (is_zero ? 0.0f : kLevels / tops[j])));
    steps[j] = is_zero ? 0.0f : tops[j] / kLevels;
  }
}

// Then exact sums (generic/integer_attention.inl.h), so that several threads may share the
// positions of a column.
template <int kQueries>
EDGE_FN void add_integer_values(At at, EDGE_ARGS AttentionArgs& args,
                                EDGE_LOCAL const Segment& segment,
                                EDGE_LOCAL const Asked<kQueries>& asked, IntegerRoom room) {
  const int channels = segment.head.value_channels;
  for (int begin = 0, group = 0; begin < segment.head.head_dim; begin += channels, ++group) {
    float steps[kQueries];
    make_weights(at, segment, asked, room, group, steps);
    EDGE_SYNC();
    const int n_cols = smaller(segment.head.head_dim - begin, channels);
    const int n_parts = kSegmentTokens / n_cols;
    const int col = at.index % n_cols, part = at.index / n_cols;
    int sums[kQueries] = {};
    for (int t = asked.from + part; part < n_parts && t < asked.to; t += n_parts) {
      const int level = value_level(segment, t, begin + col);
      EDGE_UNROLL
      for (int j = 0; j < kQueries; ++j) {
        if (j < asked.n) sums[j] += room.weights[j * kSegmentTokens + t] * level;
      }
    }
    EDGE_UNROLL
    for (int j = 0; j < kQueries; ++j) {
      if (j < asked.n) room.sums[j * kSegmentTokens + at.index] = sums[j];
    }
    EDGE_SYNC();
    EDGE_UNROLL
    for (int j = 0; j < kQueries; ++j) {
      if (at.index >= n_cols || j >= asked.n || asked.first[j] == asked.end[j]) continue;
      int sum = 0;
      for (int i = 0; i < n_parts; ++i) sum += room.sums[j * kSegmentTokens + i * n_cols + col];
      partial_of(args, asked.row(j), asked.head(j), at.x)[2 + begin + col] =
          static_cast<float>(sum) * steps[j];
    }
    EDGE_SYNC();
  }
}

// The queries of group (at.y, at.z), and what each sees of the segment.
template <int kQueries>
EDGE_FN Asked<kQueries> asked_of(At at, EDGE_ARGS AttentionArgs& args, Span bounds, int origin) {
  Asked<kQueries> asked;
  EDGE_GLOBAL const RowGroup& rows = args.groups[at.z];
  asked.heads_per_kv = args.n_heads / args.n_kv_heads;
  asked.kv_head = at.y / args.n_parts;
  asked.first_row = rows.first;
  asked.first_head = at.y % args.n_parts * kQueries;
  asked.n = smaller(rows.n * asked.heads_per_kv - asked.first_head, kQueries);
  asked.from = kSegmentTokens;
  asked.to = 0;
  EDGE_UNROLL
  for (int j = 0; j < kQueries; ++j) {
    asked.first[j] = asked.end[j] = 0;
    if (j >= asked.n) continue;
    const Span seen = seen_by(args.rows.rows[asked.row(j)], args.window);
    if (seen.end <= bounds.begin || seen.begin >= bounds.end) continue;
    asked.first[j] = larger(seen.begin, bounds.begin) - origin;
    asked.end[j] = smaller(seen.end, bounds.end) - origin;
    asked.from = smaller(asked.first[j], asked.from);
    asked.to = larger(asked.end[j], asked.to);
  }
  return asked;
}

// p of every position and query, and m and l to the partials. `lanes`: [][kLanes].
template <int kQueries>
EDGE_FN void share_out(At at, EDGE_ARGS AttentionArgs& args,
                       EDGE_LOCAL const Asked<kQueries>& asked, EDGE_LOCAL const float* scores,
                       EDGE_GROUP float* p, EDGE_GROUP float* lanes, EDGE_GROUP float* warps) {
  const int t = at.index;
  float tops[kQueries];
  EDGE_UNROLL
  for (int j = 0; j < kQueries; ++j) tops[j] = scores[j];
  group_max<kQueries>(at, asked.n, tops, warps);
  EDGE_UNROLL
  for (int j = 0; j < kQueries; ++j) {
    if (j >= asked.n) continue;
    p[j * kSegmentTokens + t] = asked.sees(j, t) ? exp_of(scores[j] - tops[j]) : 0.0f;
    if (t == 0 && asked.first[j] < asked.end[j]) {
      partial_of(args, asked.row(j), asked.head(j), at.x)[0] = tops[j];
    }
  }
  EDGE_SYNC();
  const int query = t / kLanes, lane = t % kLanes;
  if (query < asked.n) {
    float sum = 0;
    for (int i = lane; i < kSegmentTokens; i += kLanes) sum = sum + p[query * kSegmentTokens + i];
    lanes[query * kLanes + lane] = sum;
  }
  EDGE_SYNC();
  EDGE_UNROLL
  for (int j = 0; j < kQueries; ++j) {
    if (t != j * kLanes || j >= asked.n || asked.first[j] == asked.end[j]) continue;
    partial_of(args, asked.row(j), asked.head(j), at.x)[1] = tree_sum(lanes + j * kLanes);
  }
}

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

template <int kQueries, int kDim>
EDGE_KERNEL(attend_segment, AttentionArgs, kSegmentTokens) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, query_f, [kQueries * kDim]);
  EDGE_SHARED(int, query_q, [kQueries * kDim / 4]);
  EDGE_SHARED(float, query_scale, [kQueries * kDim / 16]);
  EDGE_SHARED(int, query_sum, [kQueries * kDim / 16]);
  EDGE_SHARED(int, slots, [kSegmentTokens]);
  EDGE_SHARED(float, p, [kQueries * kSegmentTokens]);
  EDGE_SHARED(int16_t, weights, [kQueries * kSegmentTokens]);
  EDGE_SHARED(int, sums, [kQueries * kSegmentTokens]);
  EDGE_SHARED(float, warps, [kQueries * kSegmentWarps]);
  EDGE_SHARED(float, lanes, [kQueries * kLanes]);
  const bool has_first = args.pages.has_first != 0;
  const Span bounds = segment_at(has_first, args.first_segment + at.x);
  const int origin = bounds.begin / kSegmentTokens * kSegmentTokens;
  const Asked<kQueries> asked = asked_of<kQueries>(at, args, bounds, origin);
  if (asked.from >= asked.to) return;

  const Queries queries = {query_f, reinterpret_cast<EDGE_GROUP int8_t*>(query_q), query_scale,
                           query_sum};
  for (int j = 0; j < asked.n; ++j) {
    EDGE_GLOBAL const float* from = query_of(args, asked.row(j), asked.head(j));
    for (int c = at.index; c < args.head_dim; c += kSegmentTokens) query_f[j * kDim + c] = from[c];
  }
  EDGE_SYNC();
  if (args.pages.other[0].key_bits < 16) {
    quantize_queries<kDim>(at, queries, asked.n, args.head_dim, args.query_channels, args.flag);
  }

  Segment segment;
  EDGE_GLOBAL const Row& row = args.rows.rows[asked.first_row];
  segment.head = head_of(args.pages, has_first && bounds.begin < kFirstTokens, asked.kv_head);
  segment.table = args.rows.tables[row.sequence].pages;
  segment.slots = slots;
  segment.p = p;
  const int t = at.index;
  const bool is_there = t >= asked.from && t < asked.to;
  slots[t] = is_there ? slot_of(row, origin + t) : 0;
  EDGE_SYNC();

  float scores[kQueries];
  if (is_there) {
    EDGE_GLOBAL const uint8_t* page = page_of(segment, t);
    if (segment.head.key_bits == 16) {
      score_f16<kQueries, kDim>(queries, asked.n, page, segment.head, place_in(segment, t), scores);
    } else {
      score_integer<kQueries, kDim>(queries, asked.n, page, segment.head, place_in(segment, t),
                                    scores);
    }
  }
  EDGE_UNROLL
  for (int j = 0; j < kQueries; ++j) {
    float score = -3.402823466e38f;
    if (is_there && j < asked.n && asked.sees(j, t)) {
      score = scores[j] * args.scale;
      if (args.softcap > 0) score = softcapped({score}, {args.softcap}).v;
    }
    scores[j] = score;
  }
  share_out(at, args, asked, scores, p, lanes, warps);
  if (segment.head.value_bits == 16) {
    add_f16_values(at, args, segment, asked);
  } else {
    const IntegerRoom room = {weights, sums, warps};
    add_integer_values(at, args, segment, asked, room);
  }
}

EDGE_KERNEL(merge_segments, AttentionArgs, kSegmentTokens) {
  const At at = EDGE_AT;
  const int head = at.x, row = args.row0 + at.y;
  const Span seen = seen_by(args.rows.rows[row], args.window);
  const bool has_first = args.pages.has_first != 0;
  const int first = segment_of(has_first, seen.begin) - args.first_segment;
  const int last = segment_of(has_first, seen.end - 1) - args.first_segment;
  EDGE_GLOBAL float* out = query_of(args, row, head);
  for (int c = at.index; c < args.head_dim; c += kSegmentTokens) {
    EDGE_GLOBAL const float* sums = partial_of(args, row, head, first);
    float m = sums[0], l = sums[1], o = sums[2 + c];
    for (int segment = first + 1; segment <= last; ++segment) {
      EDGE_GLOBAL const float* next = partial_of(args, row, head, segment);
      const float top = m > next[0] ? m : next[0];
      const float scale1 = exp_of(m - top), scale2 = exp_of(next[0] - top);
      o = fma_exact(next[2 + c], scale2, o * scale1);
      l = fma_exact(next[1], scale2, l * scale1);
      m = top;
    }
    out[c] = o / l;
  }
}

EDGE_EXPORT_AS("attend_segment_1", attend_segment, 1, kMostHeadDim)
EDGE_EXPORT_AS("attend_segment_4", attend_segment, 4, 256)
EDGE_EXPORT_AS("attend_segment_8", attend_segment, 8, 128)
EDGE_EXPORT(merge_segments)
