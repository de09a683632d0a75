// Paged attention with the CPU's sums (kernels/attention.h): a group makes a segment of up to 256
// positions for one query, a thread a position for its score and a column for its values; then a
// query's segments are merged in order. A row in a tree of drafts (RowInput::tail) reads its slots
// where they are. Included after a dialect.
#include "backends/gpu/pages.inl.h"
#include "backends/gpu/sums.inl.h"

namespace EDGE_DEVICE {

EDGE_CONSTANT int kSegmentWarps = kSegmentTokens / kWarp;

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

// A query as int8 keys meet it (kernels/attention.h, QueryInt8).
struct Query {
  EDGE_GROUP float* f;
  EDGE_GROUP int8_t* q;  // aligned to 4
  EDGE_GROUP float* scale;
  EDGE_GROUP int* sum;
};

EDGE_FN void quantize_query(At at, Query query, int head_dim, int channels,
                            EDGE_GLOBAL int32_t* flag) {
  const int lane = at.index % kWarp;
  for (int group = at.index / kWarp; group * channels < head_dim; group += kSegmentWarps) {
    const int begin = group * channels;
    const int end = smaller(begin + channels, head_dim);
    int bits = 0;
    for (int c = begin + lane; c < end; c += kWarp) bits = larger(magnitude_bits(query.f[c]), bits);
    bits = warp_max(bits);
    if (bits > 0x7f7fffff && lane == 0) *flag = 1;
    const float amax = float_of(bits);
    const bool is_zero = amax < 0x1p-100f;
    const float inverse = is_zero ? 0.0f : 127.0f / amax;
    int sum = 0;
    for (int c = begin + lane; c < end; c += kWarp) {
      const int level = scalar::lane_to_int(query.f[c] * inverse);
      const int q = level > 127 ? 127 : level < -127 ? -127 : level;
      query.q[c] = static_cast<int8_t>(q);
      sum += q;
    }
    sum = warp_sum(sum);
    if (lane != 0) continue;
    query.scale[group] = is_zero ? 0.0f : amax / 127.0f;
    query.sum[group] = sum;
  }
  if (at.index == 0) {
    for (int c = head_dim; c % 4 != 0; ++c) query.q[c] = 0;
  }
}

EDGE_FN float score_f16(Query query, EDGE_GLOBAL const uint8_t* page, EDGE_LOCAL const KvPart& head,
                        int place) {
  float score = 0;
  for (int c = 0; c < head.head_dim; ++c) {
    score = fma_exact(query.f[c], half_in(page, head.keys, c * kPageTokens + place), score);
  }
  return score;
}

EDGE_FN uint32_t key_word(EDGE_GLOBAL const uint8_t* keys, int plane) {
  return *reinterpret_cast<EDGE_GLOBAL const uint32_t*>(keys + plane * kPlaneBytes);
}
// Key bytes of a quad, from 0: what is taken off them is zero_of().
EDGE_FN uint32_t key_quad(EDGE_GLOBAL const uint8_t* keys, int bits, int quad) {
  if (bits == 8) return key_word(keys, quad) ^ 0x80808080u;
  const int plane = quad / 4 * 3;
  if (quad % 4 < 3) return key_word(keys, plane + quad % 4) & 0x3f3f3f3fu;
  return (key_word(keys, plane) >> 6 & 0x03030303u) |
         (key_word(keys, plane + 1) >> 4 & 0x0c0c0c0cu) |
         (key_word(keys, plane + 2) >> 2 & 0x30303030u);
}

EDGE_FN float score_integer(Query query, EDGE_GLOBAL const uint8_t* page,
                            EDGE_LOCAL const KvPart& head, int place) {
  EDGE_GLOBAL const uint8_t* keys = page + head.keys + place * 4;
  EDGE_GROUP const int* quads = reinterpret_cast<EDGE_GROUP const int*>(query.q);
  const int zero_point = head.key_bits == 8 ? 0 : 32;
  float score = 0;
  for (int begin = 0, group = 0; begin < head.head_dim; begin += head.key_channels, ++group) {
    const int end = smaller(begin + head.key_channels, head.head_dim);
    int dot = -zero_point * query.sum[group];
    for (int quad = begin / 4; 4 * quad < end; ++quad) {
      dot = dot4(static_cast<int>(key_quad(keys, head.key_bits, quad)), quads[quad], dot);
    }
    const float step =
        query.scale[group] * half_in(page, head.key_scales, group * kPageTokens + place);
    score = fma_exact(static_cast<float>(dot), step, score);
  }
  return score;
}

// The largest over the group; `warps`: one float for each.
EDGE_FN float group_max(At at, float x, EDGE_GROUP float* warps) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    const float other = EDGE_XOR_LANE(x, lanes);
    x = other > x ? other : x;
  }
  if (at.index % kWarp == 0) warps[at.index / kWarp] = x;
  EDGE_SYNC();
  float largest = warps[0];
  for (int i = 1; i < kSegmentWarps; ++i) largest = warps[i] > largest ? warps[i] : largest;
  EDGE_SYNC();
  return largest;
}

// What the group's threads have of a segment.
struct Segment {
  EDGE_GLOBAL const Page* table;
  KvPart head;
  int first, end;               // places of positions in it that are seen
  EDGE_GROUP const int* slots;  // [kSegmentTokens]
  EDGE_GROUP const float* p;
};
EDGE_FN EDGE_GLOBAL const uint8_t* page_of(EDGE_LOCAL const Segment& segment, int t) {
  return segment.table[segment.slots[t] / kPageTokens].bytes;
}
EDGE_FN int place_in(EDGE_LOCAL const Segment& segment, int t) {
  return segment.slots[t] % kPageTokens;
}

EDGE_FN void add_f16_values(At at, EDGE_LOCAL const Segment& segment, EDGE_GLOBAL float* o) {
  const int head_dim = segment.head.head_dim;
  for (int c = at.index; c < head_dim; c += kSegmentTokens) {
    float sum = 0;
    for (int t = segment.first; t < segment.end; ++t) {
      const float v =
          half_in(page_of(segment, t), segment.head.values, place_in(segment, t) * head_dim + c);
      sum = fma_exact(segment.p[t], v, sum);
    }
    o[c] = sum;
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

// Weights of a scale group as integers, then exact sums (generic/integer_attention.inl.h).
EDGE_FN void add_integer_values(At at, EDGE_LOCAL const Segment& segment, EDGE_GROUP int* weights,
                                EDGE_GROUP float* warps, EDGE_GLOBAL float* o) {
  const int t = at.index;
  const bool is_seen = t >= segment.first && t < segment.end;
  const int channels = segment.head.value_channels;
  for (int begin = 0, group = 0; begin < segment.head.head_dim; begin += channels, ++group) {
    const float w = is_seen ? segment.p[t] * half_in(page_of(segment, t), segment.head.value_scales,
                                                     group * kPageTokens + place_in(segment, t))
                            : 0.0f;
    const float top = group_max(at, float_of(magnitude_bits(w)), warps);
    constexpr float kLevels = 32767.0f;
    const bool is_zero = top < 0x1p-100f;
    weights[t] = scalar::lane_to_int(w * (is_zero ? 0.0f : kLevels / top));
    EDGE_SYNC();
    const float step = is_zero ? 0.0f : top / kLevels;
    const int n = smaller(segment.head.head_dim - begin, channels);
    for (int i = t; i < n; i += kSegmentTokens) {
      int sum = 0;
      for (int from = segment.first; from < segment.end; ++from) {
        sum += weights[from] * value_level(segment, from, begin + i);
      }
      o[begin + i] = static_cast<float>(sum) * step;
    }
    EDGE_SYNC();
  }
}

// (m, l, o[head_dim]) of a segment of row row0 + r.
EDGE_FN EDGE_GLOBAL float* partial_of(EDGE_ARGS AttentionArgs& args, int r, int head, int segment) {
  const int64_t at = (static_cast<int64_t>(r) * args.n_heads + head) * args.n_segments + segment;
  return args.partials + at * (2 + args.head_dim);
}
EDGE_FN EDGE_GLOBAL float* query_of(EDGE_ARGS AttentionArgs& args, int r, int head) {
  return args.q + (args.row0 + r) * args.q_stride + static_cast<int64_t>(head) * args.head_dim;
}

struct AddShare {
  EDGE_GROUP const float* p;
  EDGE_MEMBER_FN float operator()(float sum, int64_t i) const { return sum + p[i]; }
};

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

EDGE_KERNEL(attend_segment, AttentionArgs, kSegmentTokens) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, query_f, [kMostHeadDim]);
  EDGE_SHARED(int, query_q, [kMostHeadDim / 4]);
  EDGE_SHARED(float, query_scale, [kMostScales]);
  EDGE_SHARED(int, query_sum, [kMostScales]);
  EDGE_SHARED(int, slots, [kSegmentTokens]);
  EDGE_SHARED(float, p, [kSegmentTokens]);
  EDGE_SHARED(int, weights, [kSegmentTokens]);
  EDGE_SHARED(float, warps, [kSegmentWarps]);
  EDGE_SHARED(float, lanes, [kLanes]);
  const int t = at.index, number = at.x, q_head = at.y, r = at.z;
  EDGE_GLOBAL const Row& row = args.rows.rows[args.row0 + r];
  const Span bounds = segment_at(args.pages.has_first != 0, args.first_segment + number);
  const Span seen = seen_by(row, args.window);
  if (seen.end <= bounds.begin || seen.begin >= bounds.end) return;
  const int origin = bounds.begin / kSegmentTokens * kSegmentTokens;
  const int kv_head = q_head / (args.n_heads / args.n_kv_heads);

  const Query query = {query_f, reinterpret_cast<EDGE_GROUP int8_t*>(query_q), query_scale,
                       query_sum};
  EDGE_GLOBAL const float* from = query_of(args, r, q_head);
  for (int c = t; c < args.head_dim; c += kSegmentTokens) query_f[c] = from[c];
  EDGE_SYNC();
  if (args.pages.other[0].key_bits < 16) {
    quantize_query(at, query, args.head_dim, args.query_channels, args.flag);
  }

  Segment segment;
  const bool is_first = args.pages.has_first && bounds.begin < kFirstTokens;
  segment.head = head_of(args.pages, is_first, kv_head);
  segment.table = args.rows.tables[row.sequence].pages;
  segment.first = larger(seen.begin, bounds.begin) - origin;
  segment.end = smaller(seen.end, bounds.end) - origin;
  segment.slots = slots;
  segment.p = p;
  const bool is_seen = t >= segment.first && t < segment.end;
  slots[t] = is_seen ? slot_of(row, origin + t) : 0;
  EDGE_SYNC();

  float score = -3.402823466e38f;
  if (is_seen) {
    const bool is_f16 = segment.head.key_bits == 16;
    score = is_f16 ? score_f16(query, page_of(segment, t), segment.head, place_in(segment, t))
                   : score_integer(query, page_of(segment, t), segment.head, place_in(segment, t));
    score = score * args.scale;
    if (args.softcap > 0) score = softcapped({score}, {args.softcap}).v;
  }
  const float m = group_max(at, score, warps);
  p[t] = is_seen ? exp_of(score - m) : 0.0f;
  EDGE_SYNC();

  EDGE_GLOBAL float* out = partial_of(args, r, q_head, number);
  const AddShare add_share = {p};
  const float l = lane_sum(at, kSegmentTokens, lanes, add_share);
  if (t == 0) {
    out[0] = m;
    out[1] = l;
  }
  if (segment.head.value_bits == 16) {
    add_f16_values(at, segment, out + 2);
  } else {
    add_integer_values(at, segment, weights, warps, out + 2);
  }
}

EDGE_KERNEL(merge_segments, AttentionArgs, kSegmentTokens) {
  const At at = EDGE_AT;
  const int head = at.x, r = at.y;
  const Span seen = seen_by(args.rows.rows[args.row0 + r], args.window);
  const bool has_first = args.pages.has_first != 0;
  const int first = segment_of(has_first, seen.begin) - args.first_segment;
  const int last = segment_of(has_first, seen.end - 1) - args.first_segment;
  EDGE_GLOBAL float* out = query_of(args, r, head);
  for (int c = at.index; c < args.head_dim; c += kSegmentTokens) {
    EDGE_GLOBAL const float* sums = partial_of(args, r, head, first);
    float m = sums[0], l = sums[1], o = sums[2 + c];
    for (int segment = first + 1; segment <= last; ++segment) {
      EDGE_GLOBAL const float* next = partial_of(args, r, head, segment);
      const float top = m > next[0] ? m : next[0];
      const float scale1 = exp_of(m - top), scale2 = exp_of(next[0] - top);
      o = fma_exact(next[2 + c], scale2, o * scale1);
      l = fma_exact(next[1], scale2, l * scale1);
      m = top;
    }
    out[c] = o / l;
  }
}

EDGE_EXPORT(attend_segment)
EDGE_EXPORT(merge_segments)
