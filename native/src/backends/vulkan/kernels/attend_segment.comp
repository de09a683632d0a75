#version 460
// Paged attention with the CPU's sums (kernels/attention.h, gpu/attention.inl.h): a group makes a
// segment of up to 256 positions for a few queries of one kv head, which share what it reads.
#include "values.glsl"

const int kLanes = 16;

// p of every position and query, and m and l to the partials.
void share_out(float scores[kMostQueries]) {
  const int t = THREAD;
  float largest[kMostQueries] = scores;
  group_max(largest);
  for (int j = 0; j < asked.n; ++j) {
    p_of[j * kSegmentTokens + t] = sees(j, t) ? exp_of(sub(scores[j], largest[j])) : 0.0;
    if (t == 0 && sees_any(j)) AT(sums_of(j), 0).v = largest[j];
  }
  SYNC();
  const int query = t / kLanes, lane = t % kLanes;
  if (query < asked.n) {
    float sum = 0.0;
    for (int i = lane; i < kSegmentTokens; i += kLanes) {
      sum = add(sum, p_of[query * kSegmentTokens + i]);
    }
    lanes[query * kLanes + lane] = sum;
  }
  SYNC();
  if (lane != 0 || query >= asked.n || !sees_any(query)) return;
  float of_lanes[kLanes];
  [[unroll]] for (int l = 0; l < kLanes; ++l) of_lanes[l] = lanes[query * kLanes + l];
  [[unroll]] for (int width = kLanes / 2; width >= 1; width /= 2) {
    [[unroll]] for (int l = 0; l < width; ++l) of_lanes[l] = add(of_lanes[l], of_lanes[l + width]);
  }
  AT(sums_of(query), 1).v = of_lanes[0];
}

void main() {
  const bool has_first = args.pages.has_first != 0;
  const Span bounds = segment_at(has_first, args.first_segment + GROUP.x);
  const int origin = bounds.begin / kSegmentTokens * kSegmentTokens;
  ask(bounds, origin);
  if (asked.from >= asked.to) return;
  for (int j = 0; j < asked.n; ++j) {
    float_ptr from = query_of(row_of(j), head_of_query(j));
    for (int c = THREAD; c < args.head_dim; c += kSegmentTokens) query_f[j * kDim + c] = AT(from, c).v;
  }
  SYNC();
  if (args.pages.other[0].key_bits < 16) quantize_queries(args.query_channels);

  Row_ptr row = AT(args.rows.rows, asked.first_row);
  part = head_of(args.pages, has_first && bounds.begin < kFirstTokens, asked.kv_head);
  table = AT(args.rows.tables, row.v.sequence).v;
  const int t = THREAD;
  const bool is_there = t >= asked.from && t < asked.to;
  slots[t] = is_there ? slot_of(row, origin + t) : 0;
  SYNC();

  float scores[kMostQueries];
  for (int j = 0; j < kMostQueries; ++j) scores[j] = 0.0;
  if (is_there) {
    if (part.key_bits == 16) {
      score_f16(page_of(t), part, place_in(t), scores);
    } else {
      score_integer(page_of(t), part, place_in(t), scores);
    }
  }
  for (int j = 0; j < asked.n; ++j) {
    const bool is_seen = is_there && sees(j, t);
    float score = mul(scores[j], args.scale);
    if (args.softcap > 0.0) score = softcapped(score, args.softcap);
    scores[j] = is_seen ? score : -3.402823466e38;
  }
  share_out(scores);
  if (part.value_bits == 16) {
    add_f16_values();
  } else {
    add_integer_values();
  }
}
