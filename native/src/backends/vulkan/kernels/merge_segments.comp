#version 460
// The sums of a query's segments, in order.
#include "segments.glsl"

void main() {
  const int head = GROUP.x, row = args.row0 + GROUP.y;
  const Span seen = seen_by(row);
  const bool has_first = args.pages.has_first != 0;
  const int first = segment_of(has_first, seen.begin) - args.first_segment;
  const int last = segment_of(has_first, seen.end - 1) - args.first_segment;
  float_ptr to = query_of(row, head);
  for (int c = THREAD; c < args.head_dim; c += kSegmentTokens) {
    float_ptr sums = partial_of(row, head, first);
    float m = AT(sums, 0).v, l = AT(sums, 1).v, o = AT(sums, 2 + c).v;
    for (int segment = first + 1; segment <= last; ++segment) {
      float_ptr next = partial_of(row, head, segment);
      const float other = AT(next, 0).v;
      const float top = m > other ? m : other;
      const float scale1 = exp_of(sub(m, top)), scale2 = exp_of(sub(other, top));
      o = fma_exact(AT(next, 2 + c).v, scale2, mul(o, scale1));
      l = fma_exact(AT(next, 1).v, scale2, mul(l, scale1));
      m = top;
    }
    AT(to, c).v = div(o, l);
  }
}
