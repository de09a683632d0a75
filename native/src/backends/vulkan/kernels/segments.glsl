// Segments of positions: where they begin and what a row sees of them (gpu/attention.inl.h).
#include "functions.glsl"
#include "pages.glsl"
EDGE_ARGS(AttentionArgs)
layout(local_size_x = kSegmentTokens) in;

struct Span {
  int begin;
  int end;
};
Span segment_at(bool has_first, int number) {
  if (!has_first) return Span(number * kSegmentTokens, (number + 1) * kSegmentTokens);
  if (number == 0) return Span(0, kFirstTokens);
  const int begin = (number - 1) * kSegmentTokens;
  return Span(begin < kFirstTokens ? kFirstTokens : begin, number * kSegmentTokens);
}
Span seen_by(int row) {
  const int n_seen = AT(args.rows.rows, row).v.n_seen;
  return Span(args.window > 0 && n_seen > args.window ? n_seen - args.window : 0, n_seen);
}

// (m, l, o[head_dim]) of a segment of a row.
float_ptr partial_of(int row, int head, int segment) {
  const int64_t at = (int64_t(row - args.row0) * args.n_heads + head) * args.n_segments + segment;
  return AT(args.partials, at * (2 + args.head_dim));
}
float_ptr query_of(int row, int head) {
  return AT(args.q, row * args.q_stride + int64_t(head) * args.head_dim);
}
