// The queries of a group, what each sees of its segment, and what the group's threads share.
#include "segments.glsl"

layout(constant_id = 1) const int kQueries = 1;
layout(constant_id = 2) const int kDim = 1024;  // the most channels of a head
const int kMostQueries = 8;

struct Asked {
  int n;
  int first_row, first_head;  // of query 0; the heads of a row follow each other, then the rows
  int heads_per_kv;
  int kv_head;
  int first[kMostQueries];  // places of positions in the segment; none: 0 to 0
  int end[kMostQueries];
  int from, to;  // what any of them sees
};
Asked asked;

int row_of(int j) { return asked.first_row + (asked.first_head + j) / asked.heads_per_kv; }
int head_of_query(int j) {
  return asked.kv_head * asked.heads_per_kv + (asked.first_head + j) % asked.heads_per_kv;
}
bool sees(int j, int t) { return t >= asked.first[j] && t < asked.end[j]; }
bool sees_any(int j) { return asked.first[j] < asked.end[j]; }
float_ptr sums_of(int j) { return partial_of(row_of(j), head_of_query(j), GROUP.x); }

// The queries of group (GROUP.y, GROUP.z).
void ask(Span bounds, int origin) {
  const RowGroup rows = AT(args.groups, GROUP.z).v;
  asked.heads_per_kv = args.n_heads / args.n_kv_heads;
  asked.kv_head = GROUP.y / args.n_parts;
  asked.first_row = rows.first;
  asked.first_head = GROUP.y % args.n_parts * kQueries;
  asked.n = smaller(rows.n * asked.heads_per_kv - asked.first_head, kQueries);
  asked.from = kSegmentTokens;
  asked.to = 0;
  for (int j = 0; j < kQueries; ++j) {
    asked.first[j] = asked.end[j] = 0;
    if (j >= asked.n) continue;
    const Span seen = seen_by(row_of(j));
    if (seen.end <= bounds.begin || seen.begin >= bounds.end) continue;
    asked.first[j] = larger(seen.begin, bounds.begin) - origin;
    asked.end[j] = smaller(seen.end, bounds.end) - origin;
    asked.from = smaller(asked.first[j], asked.from);
    asked.to = larger(asked.end[j], asked.to);
  }
}

shared float query_f[kQueries * kDim];
shared int query_q[kQueries * kDim / 4];
shared float query_scale[kQueries * kDim / 16];
shared int query_sum[kQueries * kDim / 16];
shared int query_top[kQueries * kDim / 16];
shared int slots[kSegmentTokens];
shared float p_of[kQueries * kSegmentTokens];
shared int weights[kQueries * kSegmentTokens];
shared int sums[kQueries * kSegmentTokens];
shared float lanes[kQueries * 16];
shared int tops[kMostQueries];

// Floats as integers that order as they do.
int ordered(float x) {
  const int bits = floatBitsToInt(x);
  return bits < 0 ? bits ^ 0x7fffffff : bits;
}
float of_ordered(int key) { return intBitsToFloat(key < 0 ? key ^ 0x7fffffff : key); }

// The largest x[j] over the group, for each query.
void group_max(inout float x[kMostQueries]) {
  if (THREAD < kMostQueries) tops[THREAD] = -2147483647;
  SYNC();
  for (int j = 0; j < asked.n; ++j) atomicMax(tops[j], ordered(x[j]));
  SYNC();
  for (int j = 0; j < asked.n; ++j) x[j] = of_ordered(tops[j]);
  SYNC();
}
