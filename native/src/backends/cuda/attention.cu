// Paged attention with the CPU's sums (kernels/attention.h): a block makes a segment of up to 256
// positions for one query, a thread a position for its score and a column for its values; then a
// query's segments are merged in order. A row in a tree of drafts (RowInput::tail) reads its slots
// where they are.
#include "backends/cuda/pages.h"
#include "backends/cuda/sums.h"
#include "kernels/attention.h"

namespace edge::cuda {
namespace {

constexpr int kThreads = kSegmentTokens;
constexpr int kWarps = kThreads / 32;

struct Span {
  int begin;
  int end;
};
__device__ Span segment_at(bool has_first, int number) {
  if (!has_first) return {number * kSegmentTokens, (number + 1) * kSegmentTokens};
  if (number == 0) return {0, kFirstTokens};
  const int begin = (number - 1) * kSegmentTokens;
  return {begin < kFirstTokens ? kFirstTokens : begin, number * kSegmentTokens};
}

__device__ Span seen_by(const Row& row, int window) {
  return {window > 0 && row.n_seen > window ? row.n_seen - window : 0, row.n_seen};
}

__device__ int slot_of(const Row& row, int position) {
  const bool is_before = row.n_tail == 0 || position < row.tail[0];
  return is_before ? position : row.tail[position - row.tail[0]];
}

// A query as int8 keys meet it (kernels/attention.h, QueryInt8).
struct Query {
  float* f;
  int8_t* q;  // aligned to 4
  float* scale;
  int* sum;
};

__device__ void quantize_query(const Query& query, int head_dim, int* flag) {
  const int channels = kv_query_channels(head_dim);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int group = static_cast<int>(threadIdx.x) / 32; group * channels < head_dim;
       group += kWarps) {
    const int begin = group * channels;
    const int end = begin + channels < head_dim ? begin + channels : head_dim;
    int bits = 0;
    for (int c = begin + lane; c < end; c += 32) {
      const int magnitude = magnitude_bits(query.f[c]);
      bits = magnitude > bits ? magnitude : bits;
    }
    bits = warp_max(bits);
    if (bits > 0x7f7fffff && lane == 0) *flag = 1;
    const float amax = scalar::lane_float(static_cast<uint32_t>(bits));
    const bool is_zero = amax < 0x1p-100f;
    const float inverse = is_zero ? 0.0f : 127.0f / amax;
    int sum = 0;
    for (int c = begin + lane; c < end; c += 32) {
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
  if (threadIdx.x == 0) {
    for (int c = head_dim; c % 4 != 0; ++c) query.q[c] = 0;
  }
}

__device__ float half_in(const uint8_t* page, size_t part, int i) {
  return half_to_float(reinterpret_cast<const uint16_t*>(page + part)[i]);
}

__device__ float score_f16(const Query& query, const uint8_t* page, const KvHead& head, int place) {
  float score = 0;
  for (int c = 0; c < head.head_dim; ++c) {
    score = fma_exact(query.f[c], half_in(page, head.keys, c * kPageTokens + place), score);
  }
  return score;
}

// Key bytes of a quad, from 0: what is taken off them is zero_of().
__device__ uint32_t key_quad(const uint8_t* keys, int bits, int quad) {
  const auto word = [&](int plane) {
    return *reinterpret_cast<const uint32_t*>(keys + plane * kPlaneBytes);
  };
  if (bits == 8) return word(quad) ^ 0x80808080u;
  const int plane = quad / 4 * 3;
  if (quad % 4 < 3) return word(plane + quad % 4) & 0x3f3f3f3fu;
  return (word(plane) >> 6 & 0x03030303u) | (word(plane + 1) >> 4 & 0x0c0c0c0cu) |
         (word(plane + 2) >> 2 & 0x30303030u);
}

__device__ float score_integer(const Query& query, const uint8_t* page, const KvHead& head,
                               int place) {
  const uint8_t* keys = page + head.keys + place * 4;
  const int zero = head.key_bits == 8 ? 0 : 32;
  float score = 0;
  for (int begin = 0, group = 0; begin < head.head_dim; begin += head.key_channels, ++group) {
    const int left = head.head_dim - begin;
    const int end = begin + (left < head.key_channels ? left : head.key_channels);
    int dot = -zero * query.sum[group];
    for (int quad = begin / 4; 4 * quad < end; ++quad) {
      int q;
      memcpy(&q, query.q + 4 * quad, sizeof q);
      dot = __dp4a(static_cast<int>(key_quad(keys, head.key_bits, quad)), q, dot);
    }
    const float step =
        query.scale[group] * half_in(page, head.key_scales, group * kPageTokens + place);
    score = fma_exact(static_cast<float>(dot), step, score);
  }
  return score;
}

// The largest over the block; `warps`: shared, one float for each.
__device__ float block_max(float x, float* warps) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, x, lanes);
    x = other > x ? other : x;
  }
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
  __syncthreads();
  float largest = warps[0];
  for (int i = 1; i < kWarps; ++i) largest = warps[i] > largest ? warps[i] : largest;
  __syncthreads();
  return largest;
}

// What the block's threads have of a segment.
struct Segment {
  const uint8_t* const* table;
  KvHead head;
  int first, end;    // places of positions in it that are seen
  const int* slots;  // [kSegmentTokens]
  const float* p;

  __device__ const uint8_t* page(int t) const { return table[slots[t] / kPageTokens]; }
  __device__ int place(int t) const { return slots[t] % kPageTokens; }
};

__device__ void add_f16_values(const Segment& segment, float* o) {
  const int head_dim = segment.head.head_dim;
  for (int c = static_cast<int>(threadIdx.x); c < head_dim; c += kThreads) {
    float sum = 0;
    for (int t = segment.first; t < segment.end; ++t) {
      const float v =
          half_in(segment.page(t), segment.head.values, segment.place(t) * head_dim + c);
      sum = fma_exact(segment.p[t], v, sum);
    }
    o[c] = sum;
  }
}

__device__ int value_level(const Segment& segment, int t, int c) {
  const int place = segment.place(t);
  const int byte_of = place % 4 == 1 ? 2 : place % 4 == 2 ? 1 : place % 4;
  const uint8_t* row =
      segment.page(t) + segment.head.values + place / 4 * segment.head.value_row_bytes + byte_of;
  if (segment.head.value_bits == 8) return row[4 * c] - 128;
  const int byte = row[4 * (c / 32 * 16 + c % 16)];
  return (c % 32 < 16 ? byte & 15 : byte >> 4) - 8;
}

// Weights of a scale group as integers, then exact sums (generic/integer_attention.inl.h).
__device__ void add_integer_values(const Segment& segment, int* weights, float* warps, float* o) {
  const KvHead& head = segment.head;
  const auto t = static_cast<int>(threadIdx.x);
  const bool is_seen = t >= segment.first && t < segment.end;
  for (int begin = 0, group = 0; begin < head.head_dim; begin += head.value_channels, ++group) {
    const float w = is_seen ? segment.p[t] * half_in(segment.page(t), head.value_scales,
                                                     group * kPageTokens + segment.place(t))
                            : 0.0f;
    const float top =
        block_max(scalar::lane_float(static_cast<uint32_t>(magnitude_bits(w))), warps);
    constexpr float kLevels = 32767.0f;
    const bool is_zero = top < 0x1p-100f;
    weights[t] = scalar::lane_to_int(w * (is_zero ? 0.0f : kLevels / top));
    __syncthreads();
    const float step = is_zero ? 0.0f : top / kLevels;
    const int left = head.head_dim - begin;
    const int n = left < head.value_channels ? left : head.value_channels;
    for (int i = t; i < n; i += kThreads) {
      int sum = 0;
      for (int at = segment.first; at < segment.end; ++at) {
        sum += weights[at] * value_level(segment, at, begin + i);
      }
      o[begin + i] = static_cast<float>(sum) * step;
    }
    __syncthreads();
  }
}

__device__ float* partial_of(const AttentionArgs& args, float* partials, int row, int head,
                             int segment) {
  const int64_t at = (int64_t{row} * args.n_heads + head) * args.n_segments + segment;
  return partials + at * (2 + args.head_dim);
}

__global__ void __launch_bounds__(kThreads)
    segment_kernel(AttentionArgs args, Rows rows, PagesArgs pages, const float* q, float* partials,
                   int* flag) {
  EDGE_SHARED(float, query_f, [kMostHeadDim]);
  EDGE_SHARED(int, query_q, [kMostHeadDim / 4]);
  EDGE_SHARED(float, query_scale, [kMostScales]);
  EDGE_SHARED(int, query_sum, [kMostScales]);
  EDGE_SHARED(int, slots, [kThreads]);
  EDGE_SHARED(float, p, [kThreads]);
  EDGE_SHARED(int, weights, [kThreads]);
  EDGE_SHARED(float, warps, [kWarps]);
  EDGE_SHARED(float, lanes, [kLanes]);
  const auto t = static_cast<int>(threadIdx.x);
  const auto number = static_cast<int>(blockIdx.x), q_head = static_cast<int>(blockIdx.y);
  const Row& row = rows.rows[args.row0 + static_cast<int>(blockIdx.z)];
  const Span bounds = segment_at(pages.has_first, args.first_segment + number);
  const Span seen = seen_by(row, args.window);
  if (seen.end <= bounds.begin || seen.begin >= bounds.end) return;
  const int origin = bounds.begin / kSegmentTokens * kSegmentTokens;
  const int kv_head = q_head / (args.n_heads / args.n_kv_heads);

  const Query query = {query_f, reinterpret_cast<int8_t*>(query_q), query_scale, query_sum};
  const float* from = q + (args.row0 + static_cast<int>(blockIdx.z)) * args.q_stride +
                      int64_t{q_head} * args.head_dim;
  for (int c = t; c < args.head_dim; c += kThreads) query_f[c] = from[c];
  __syncthreads();
  if (pages.other[0].key_bits < 16) quantize_query(query, args.head_dim, flag);

  Segment segment;
  const bool is_first = pages.has_first && bounds.begin < kFirstTokens;
  segment.head = head_of(is_first ? pages.first : pages.other, kv_head);
  segment.table = rows.tables[row.sequence];
  segment.first = (seen.begin > bounds.begin ? seen.begin : bounds.begin) - origin;
  segment.end = (seen.end < bounds.end ? seen.end : bounds.end) - origin;
  segment.slots = slots;
  segment.p = p;
  const bool is_seen = t >= segment.first && t < segment.end;
  slots[t] = is_seen ? slot_of(row, origin + t) : 0;
  __syncthreads();

  constexpr float kLowest = -3.402823466e38f;
  float score = kLowest;
  if (is_seen) {
    const bool is_f16 = segment.head.key_bits == 16;
    score = is_f16 ? score_f16(query, segment.page(t), segment.head, segment.place(t))
                   : score_integer(query, segment.page(t), segment.head, segment.place(t));
    score = score * args.scale;
    if (args.softcap > 0) score = softcapped({score}, {args.softcap}).v;
  }
  const float m = block_max(score, warps);
  p[t] = is_seen ? exp_of(score - m) : 0.0f;
  __syncthreads();

  float* out = partial_of(args, partials, static_cast<int>(blockIdx.z), q_head, number);
  const float l = lane_sum(kSegmentTokens, lanes, [&](float sum, int64_t i) { return sum + p[i]; });
  if (t == 0) {
    out[0] = m;
    out[1] = l;
  }
  if (segment.head.value_bits == 16) {
    add_f16_values(segment, out + 2);
  } else {
    add_integer_values(segment, weights, warps, out + 2);
  }
}

__global__ void __launch_bounds__(kThreads)
    merge_kernel(AttentionArgs args, Rows rows, PagesArgs pages, float* partials, float* q) {
  const auto head = static_cast<int>(blockIdx.x), r = static_cast<int>(blockIdx.y);
  const Row& row = rows.rows[args.row0 + r];
  const Span seen = seen_by(row, args.window);
  const int first = segment_of(pages.has_first, seen.begin) - args.first_segment;
  const int last = segment_of(pages.has_first, seen.end - 1) - args.first_segment;
  float* out = q + (args.row0 + r) * args.q_stride + int64_t{head} * args.head_dim;
  for (int c = static_cast<int>(threadIdx.x); c < args.head_dim; c += kThreads) {
    const float* sums = partial_of(args, partials, r, head, first);
    float m = sums[0], l = sums[1], o = sums[2 + c];
    for (int segment = first + 1; segment <= last; ++segment) {
      const float* next = partial_of(args, partials, r, head, segment);
      const float top = m > next[0] ? m : next[0];
      const float scale1 = exp_of(m - top), scale2 = exp_of(next[0] - top);
      o = fma_exact(next[2 + c], scale2, o * scale1);
      l = fma_exact(next[1], scale2, l * scale1);
      m = top;
    }
    out[c] = o / l;
  }
}

}  // namespace

void attend(const AttentionArgs& args, const Rows& rows, int n_rows, const PagesArgs& pages,
            const float* q, float* partials, int* flag, cudaStream_t s) {
  const dim3 grid(static_cast<unsigned>(args.n_segments), static_cast<unsigned>(args.n_heads),
                  static_cast<unsigned>(n_rows));
  EDGE_LAUNCH(segment_kernel, grid, dim3(kThreads), s)(args, rows, pages, q, partials, flag);
}

void merge_segments(const AttentionArgs& args, const Rows& rows, int n_rows, const PagesArgs& pages,
                    float* partials, float* q, cudaStream_t s) {
  const dim3 grid(static_cast<unsigned>(args.n_heads), static_cast<unsigned>(n_rows));
  EDGE_LAUNCH(merge_kernel, grid, dim3(kThreads), s)(args, rows, pages, partials, q);
}

}  // namespace edge::cuda
