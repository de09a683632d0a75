// Heads behind their matrix: bias, norm, rotary turn, how keys stand in pages (cpu/stored_keys.h),
// and their bytes there (kernels/generic/kv_store.inl.h). A block makes one head of one row.
#include "backends/cuda/pages.h"
#include "backends/cuda/sums.h"

namespace edge::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;

// The head's channels to `head`.
__device__ void load_head(const HeadsArgs& args, int row, int number, float* head, float* lanes) {
  const int64_t first = int64_t{number} * args.head_dim;
  const float* raw = args.raw + row * args.stride;
  const auto biased = [&](int64_t i) {
    return args.bias == nullptr ? raw[i] : raw[i] + args.bias[i];
  };
  NormArgs norm;
  norm.weight = args.norm;
  norm.eps = args.eps;
  const int64_t part = args.norm == nullptr ? 0 : first / args.n_norm * args.n_norm;
  const NormFactors factors =
      norm_factors(norm, args.n_norm, lanes, [&](int64_t i) { return biased(part + i); });
  for (int c = static_cast<int>(threadIdx.x); c < args.head_dim; c += kThreads) {
    head[c] = normed(norm, factors, biased(first + c), first + c - part);
  }
  __syncthreads();
}

__device__ void rotate(const HeadsArgs& args, int row, float* head) {
  const int half = args.n_rope / 2;
  for (int i = static_cast<int>(threadIdx.x); i < half; i += kThreads) {
    const float a = head[i], b = head[i + half];
    const float c = args.cos[row * half + i], s = args.sin[row * half + i];
    head[i] = fma_exact(a, c, -(b * s));
    head[i + half] = fma_exact(b, c, a * s);
  }
  __syncthreads();
}

__device__ void balance(const HeadsArgs& args, int number, float* head) {
  if (args.scale == nullptr) return;
  const int at = number / args.heads_per_scale * args.head_dim;
  for (int c = static_cast<int>(threadIdx.x); c < args.head_dim; c += kThreads) {
    const float scale = args.scale[at + c];
    head[c] = args.divides ? head[c] / scale : (head[c] - args.mean[at + c]) * scale;
  }
  __syncthreads();
}

// cpu/hadamard.h
__device__ void mix(const HeadsArgs& args, float* head) {
  if (!args.mixes) return;
  const int n = args.head_dim & -args.head_dim;
  for (int distance = 1; distance < n; distance *= 2) {
    for (int i = static_cast<int>(threadIdx.x); i < args.head_dim / 2; i += kThreads) {
      const int at = i / distance * 2 * distance + i % distance;
      const float a = head[at], b = head[at + distance];
      head[at] = a + b;
      head[at + distance] = a - b;
    }
    __syncthreads();
  }
  const auto scale = static_cast<float>(1.0 / sqrt(static_cast<double>(n)));
  for (int c = static_cast<int>(threadIdx.x); c < args.head_dim; c += kThreads) head[c] *= scale;
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) queries_kernel(HeadsArgs args, float* q) {
  EDGE_SHARED(float, head, [kMostHeadDim]);
  EDGE_SHARED(float, lanes, [kLanes]);
  const int row = static_cast<int>(blockIdx.y), number = static_cast<int>(blockIdx.x);
  load_head(args, row, number, head, lanes);
  rotate(args, row, head);
  balance(args, number, head);
  mix(args, head);
  for (int c = static_cast<int>(threadIdx.x); c < args.head_dim; c += kThreads) {
    q[row * args.stride + int64_t{number} * args.head_dim + c] = head[c];
  }
}

// The place of a token in its page, for one kv head.
struct Place {
  uint8_t* page;
  KvHead head;
  int slot;
};
__device__ Place place_of(const Rows& rows, const PagesArgs& pages, int row, int head) {
  const Row& r = rows.rows[row];
  const int number = r.slot / kPageTokens;
  const bool is_first = pages.has_first && number < kFirstPages;
  const uint8_t* page = rows.tables[r.sequence][number];
  return {const_cast<uint8_t*>(page), head_of(is_first ? pages.first : pages.other, head),
          r.slot % kPageTokens};
}

__device__ uint16_t* halves_at(const Place& at, size_t part) {
  return reinterpret_cast<uint16_t*>(at.page + part);
}

// f16 of the channels, `stride` halves apart.
__device__ void store_halves(const float* head, int n, uint16_t* to, int stride, int* flag) {
  for (int c = static_cast<int>(threadIdx.x); c < n; c += kThreads) {
    to[c * stride] = float_to_half(head[c]);
    if (magnitude_bits(head[c]) > 0x477fefff) *flag = 1;  // 65520 and above
  }
}

// Levels of n channels, by a warp, and their f16 scale.
__device__ void level_group(const float* x, int n, int least, int most, uint16_t* scale,
                            int8_t* levels, int* flag) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int bits = 0, positive = 0;
  for (int i = lane; i < n; i += 32) {
    const int magnitude = magnitude_bits(x[i]);
    const auto value = static_cast<int>(scalar::lane_bits(x[i]));
    bits = magnitude > bits ? magnitude : bits;
    positive = value > positive ? value : positive;
  }
  bits = warp_max(bits);
  positive = warp_max(positive);
  const float amax = scalar::lane_float(static_cast<uint32_t>(bits));
  const bool is_positive = least != -most && positive == bits;
  const uint16_t half = float_to_half((is_positive ? amax : -amax) / static_cast<float>(least));
  constexpr int kInfinity = 0x7c00;
  if (bits > 0x7f7fffff || (half & kInfinity) == kInfinity) {
    if (lane == 0) *flag = 1;
    return;
  }
  if (lane == 0) *scale = half;
  const float step = half_to_float(half);
  const float inverse = step == 0 ? 0.0f : 1.0f / step;
  for (int i = lane; i < n; i += 32) {
    const int level = scalar::lane_to_int(x[i] * inverse);
    levels[i] = static_cast<int8_t>(level < least ? least : level > most ? most : level);
  }
}

// All of a head's levels, a warp a group.
__device__ void level_head(const float* head, int head_dim, int channels, int bits,
                           uint16_t* scales, int8_t* levels, int* flag) {
  const int most = bits == 8 ? 127 : bits == 6 ? 31 : 7;
  const int least = bits == 4 ? -8 : -most;
  for (int group = static_cast<int>(threadIdx.x) / 32; group * channels < head_dim;
       group += kWarps) {
    const int begin = group * channels;
    const int n = head_dim - begin < channels ? head_dim - begin : channels;
    level_group(head + begin, n, least, most, scales + group * kPageTokens, levels + begin, flag);
  }
  __syncthreads();
}

__device__ void put_key(const Place& to, const int8_t* levels) {
  const int head_dim = to.head.head_dim;
  uint8_t* keys = to.page + to.head.keys + to.slot * 4;
  for (int c = static_cast<int>(threadIdx.x); c < head_dim; c += kThreads) {
    const int quad = c / 4;
    if (to.head.key_bits == 8) {
      keys[quad * kPlaneBytes + c % 4] = static_cast<uint8_t>(levels[c] + 128);
      continue;
    }
    const int plane = quad % 4;
    if (plane == 3) continue;  // in the top bits of the others
    const int last = quad / 4 * 16 + 12 + c % 4;
    const int top = last < head_dim ? (levels[last] + 32) >> 2 * plane & 3 : 0;
    keys[(quad / 4 * 3 + plane) * kPlaneBytes + c % 4] =
        static_cast<uint8_t>(levels[c] + 32 + (top << 6));
  }
}

__device__ void put_value(const Place& to, const int8_t* levels) {
  const int head_dim = to.head.head_dim;
  const int byte_of = to.slot % 4 == 1 ? 2 : to.slot % 4 == 2 ? 1 : to.slot % 4;
  uint8_t* row = to.page + to.head.values + to.slot / 4 * to.head.value_row_bytes + byte_of;
  for (int c = static_cast<int>(threadIdx.x); c < head_dim; c += kThreads) {
    if (to.head.value_bits == 8) {
      row[4 * c] = static_cast<uint8_t>(levels[c] + 128);
    } else if (c % 32 < 16) {
      const int high = c + 16 < head_dim ? levels[c + 16] + 8 : 0;
      row[4 * (c / 32 * 16 + c % 16)] = static_cast<uint8_t>(levels[c] + 8 + (high << 4));
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    keys_kernel(HeadsArgs args, Rows rows, PagesArgs pages, int* flag) {
  EDGE_SHARED(float, head, [kMostHeadDim]);
  EDGE_SHARED(float, lanes, [kLanes]);
  EDGE_SHARED(int8_t, levels, [kMostHeadDim]);
  const int row = static_cast<int>(blockIdx.y), number = static_cast<int>(blockIdx.x);
  load_head(args, row, number, head, lanes);
  rotate(args, row, head);
  balance(args, number, head);
  mix(args, head);
  const Place to = place_of(rows, pages, row, number);
  if (to.head.key_bits == 16) {
    store_halves(head, args.head_dim, halves_at(to, to.head.keys) + to.slot, kPageTokens, flag);
    return;
  }
  level_head(head, args.head_dim, to.head.key_channels, to.head.key_bits,
             halves_at(to, to.head.key_scales) + to.slot, levels, flag);
  put_key(to, levels);
}

__global__ void __launch_bounds__(kThreads)
    values_kernel(HeadsArgs args, Rows rows, PagesArgs pages, int* flag) {
  EDGE_SHARED(float, head, [kMostHeadDim]);
  EDGE_SHARED(float, lanes, [kLanes]);
  EDGE_SHARED(int8_t, levels, [kMostHeadDim]);
  const int row = static_cast<int>(blockIdx.y), number = static_cast<int>(blockIdx.x);
  load_head(args, row, number, head, lanes);
  const Place to = place_of(rows, pages, row, number);
  if (to.head.value_bits == 16) {
    store_halves(head, args.head_dim, halves_at(to, to.head.values) + to.slot * args.head_dim, 1,
                 flag);
    return;
  }
  level_head(head, args.head_dim, to.head.value_channels, to.head.value_bits,
             halves_at(to, to.head.value_scales) + to.slot, levels, flag);
  put_value(to, levels);
}

dim3 grid_of(const HeadsArgs& args, int n_rows) {
  return dim3(static_cast<unsigned>(args.n_heads), static_cast<unsigned>(n_rows));
}

}  // namespace

void finish_queries(const HeadsArgs& args, int n_rows, float* q, cudaStream_t s) {
  EDGE_LAUNCH(queries_kernel, grid_of(args, n_rows), dim3(kThreads), s)(args, q);
}

void store_keys(const HeadsArgs& args, const Rows& rows, const PagesArgs& pages, int* flag,
                cudaStream_t s) {
  EDGE_LAUNCH(keys_kernel, grid_of(args, rows.n_rows), dim3(kThreads), s)
  (args, rows, pages, flag);
}

void store_values(const HeadsArgs& args, const Rows& rows, const PagesArgs& pages, int* flag,
                  cudaStream_t s) {
  EDGE_LAUNCH(values_kernel, grid_of(args, rows.n_rows), dim3(kThreads), s)
  (args, rows, pages, flag);
}

}  // namespace edge::cuda
