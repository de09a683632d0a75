// Heads behind their matrix: bias, norm, rotary turn, how keys stand in pages (cpu/stored_keys.h),
// and their bytes there (kernels/generic/kv_store.inl.h). A group makes one head of one row; x is
// the head, y the row. Included after a dialect.
#include "backends/gpu/pages.inl.h"
#include "backends/gpu/sums.inl.h"

namespace EDGE_DEVICE {

EDGE_CONSTANT int kHeadWarps = kHeadThreads / kWarp;

struct BiasedValue {
  EDGE_GLOBAL const float* raw;
  EDGE_GLOBAL const float* bias;  // null: none
  int64_t first;
  EDGE_MEMBER_FN float operator()(int64_t i) const {
    return bias == nullptr ? raw[first + i] : raw[first + i] + bias[first + i];
  }
};

// The head's channels to `head`.
EDGE_FN void load_head(At at, EDGE_ARGS HeadsArgs& args, EDGE_GROUP float* head,
                       EDGE_GROUP float* lanes) {
  const int64_t first = static_cast<int64_t>(at.x) * args.head_dim;
  EDGE_GLOBAL const float* raw = args.raw + at.y * args.stride;
  const int64_t part = args.norm.weight == nullptr ? 0 : first / args.n_norm * args.n_norm;
  const BiasedValue of_norm = {raw, args.bias, part};
  const BiasedValue of_head = {raw, args.bias, first};
  const NormFactors factors = norm_factors(at, args.norm, args.n_norm, lanes, of_norm);
  for (int c = at.index; c < args.head_dim; c += kHeadThreads) {
    head[c] = normed(args.norm, factors, of_head(c), first + c - part);
  }
  EDGE_SYNC();
}

EDGE_FN void rotate(At at, EDGE_ARGS HeadsArgs& args, EDGE_GROUP float* head) {
  const int half_rope = args.n_rope / 2;
  for (int i = at.index; i < half_rope; i += kHeadThreads) {
    const float a = head[i], b = head[i + half_rope];
    const float c = args.cos[at.y * half_rope + i], s = args.sin[at.y * half_rope + i];
    head[i] = fma_exact(a, c, -(b * s));
    head[i + half_rope] = fma_exact(b, c, a * s);
  }
  EDGE_SYNC();
}

EDGE_FN void balance(At at, EDGE_ARGS HeadsArgs& args, EDGE_GROUP float* head) {
  if (args.scale == nullptr) return;
  const int first = at.x / args.heads_per_scale * args.head_dim;
  for (int c = at.index; c < args.head_dim; c += kHeadThreads) {
    const float scale = args.scale[first + c];
    head[c] = args.divides ? head[c] / scale : (head[c] - args.mean[first + c]) * scale;
  }
  EDGE_SYNC();
}

// cpu/hadamard.h
EDGE_FN void mix(At at, EDGE_ARGS HeadsArgs& args, EDGE_GROUP float* head) {
  if (!args.mixes) return;
  const int n = args.head_dim & -args.head_dim;
  for (int distance = 1; distance < n; distance *= 2) {
    for (int i = at.index; i < args.head_dim / 2; i += kHeadThreads) {
      const int from = i / distance * 2 * distance + i % distance;
      const float a = head[from], b = head[from + distance];
      head[from] = a + b;
      head[from + distance] = a - b;
    }
    EDGE_SYNC();
  }
  for (int c = at.index; c < args.head_dim; c += kHeadThreads) head[c] *= args.mix_scale;
  EDGE_SYNC();
}

// The place of a token in its page, for one kv head.
struct Place {
  EDGE_GLOBAL uint8_t* page;
  KvPart head;
  int slot;
};
EDGE_FN Place place_of(At at, EDGE_ARGS StoreArgs& args) {
  EDGE_GLOBAL const Row& row = args.rows.rows[at.y];
  const int number = row.slot / kPageTokens;
  const bool is_first = args.pages.has_first && number < kFirstTokens / kPageTokens;
  Place place;
  place.page = args.rows.tables[row.sequence].pages[number].bytes;
  place.head = head_of(args.pages, is_first, at.x);
  place.slot = row.slot % kPageTokens;
  return place;
}

EDGE_FN EDGE_GLOBAL uint16_t* halves_at(EDGE_LOCAL const Place& place, uint64_t part) {
  return reinterpret_cast<EDGE_GLOBAL uint16_t*>(place.page + part);
}

// f16 of the channels, `stride` halves apart.
EDGE_FN void store_halves(At at, EDGE_GROUP const float* head, int n, EDGE_GLOBAL uint16_t* to,
                          int stride, EDGE_GLOBAL int32_t* flag) {
  for (int c = at.index; c < n; c += kHeadThreads) {
    to[c * stride] = float_to_half(head[c]);
    if (magnitude_bits(head[c]) > 0x477fefff) *flag = 1;  // 65520 and above
  }
}

// Levels of n channels, by a warp, and their f16 scale.
EDGE_FN void level_group(int lane, EDGE_GROUP const float* x, int n, int least, int most,
                         EDGE_GLOBAL uint16_t* scale, EDGE_GROUP int8_t* levels,
                         EDGE_GLOBAL int32_t* flag) {
  int bits = 0, positive = 0;
  for (int i = lane; i < n; i += kWarp) {
    bits = larger(magnitude_bits(x[i]), bits);
    positive = larger(static_cast<int>(scalar::lane_bits(x[i])), positive);
  }
  bits = warp_max(bits);
  positive = warp_max(positive);
  const float amax = float_of(bits);
  const bool is_positive = least != -most && positive == bits;
  const uint16_t stored = float_to_half((is_positive ? amax : -amax) / static_cast<float>(least));
  constexpr int kInfinity = 0x7c00;
  if (bits > 0x7f7fffff || (stored & kInfinity) == kInfinity) {
    if (lane == 0) *flag = 1;
    return;
  }
  if (lane == 0) *scale = stored;
  const float step = half_to_float(stored);
  const float inverse = step == 0 ? 0.0f : 1.0f / step;
  for (int i = lane; i < n; i += kWarp) {
    const int level = scalar::lane_to_int(x[i] * inverse);
    levels[i] = static_cast<int8_t>(level < least ? least : level > most ? most : level);
  }
}

// All of a head's levels, a warp a group.
EDGE_FN void level_head(At at, EDGE_GROUP const float* head, int head_dim, int channels, int bits,
                        EDGE_GLOBAL uint16_t* scales, EDGE_GROUP int8_t* levels,
                        EDGE_GLOBAL int32_t* flag) {
  const int most = bits == 8 ? 127 : bits == 6 ? 31 : 7;
  const int least = bits == 4 ? -8 : -most;
  for (int group = at.index / kWarp; group * channels < head_dim; group += kHeadWarps) {
    const int begin = group * channels;
    level_group(at.index % kWarp, head + begin, smaller(head_dim - begin, channels), least, most,
                scales + group * kPageTokens, levels + begin, flag);
  }
  EDGE_SYNC();
}

EDGE_FN void put_key(At at, EDGE_LOCAL const Place& to, EDGE_GROUP const int8_t* levels) {
  const int head_dim = to.head.head_dim;
  EDGE_GLOBAL uint8_t* keys = to.page + to.head.keys + to.slot * 4;
  for (int c = at.index; c < head_dim; c += kHeadThreads) {
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

EDGE_FN void put_value(At at, EDGE_LOCAL const Place& to, EDGE_GROUP const int8_t* levels) {
  const int head_dim = to.head.head_dim;
  EDGE_GLOBAL uint8_t* row =
      to.page + to.head.values + to.slot / 4 * to.head.value_row_bytes + value_byte(to.slot);
  for (int c = at.index; c < head_dim; c += kHeadThreads) {
    if (to.head.value_bits == 8) {
      row[4 * c] = static_cast<uint8_t>(levels[c] + 128);
    } else if (c % 32 < 16) {
      const int high = c + 16 < head_dim ? levels[c + 16] + 8 : 0;
      row[4 * (c / 32 * 16 + c % 16)] = static_cast<uint8_t>(levels[c] + 8 + (high << 4));
    }
  }
}

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

EDGE_KERNEL(finish_queries, StoreArgs, kHeadThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, head, [kMostHeadDim]);
  EDGE_SHARED(float, lanes, [kLanes]);
  load_head(at, args.heads, head, lanes);
  rotate(at, args.heads, head);
  balance(at, args.heads, head);
  mix(at, args.heads, head);
  const int head_dim = args.heads.head_dim;
  EDGE_GLOBAL float* q = args.q + at.y * args.heads.stride + static_cast<int64_t>(at.x) * head_dim;
  for (int c = at.index; c < head_dim; c += kHeadThreads) q[c] = head[c];
}

EDGE_KERNEL(store_keys, StoreArgs, kHeadThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, head, [kMostHeadDim]);
  EDGE_SHARED(float, lanes, [kLanes]);
  EDGE_SHARED(int8_t, levels, [kMostHeadDim]);
  load_head(at, args.heads, head, lanes);
  rotate(at, args.heads, head);
  balance(at, args.heads, head);
  mix(at, args.heads, head);
  const int head_dim = args.heads.head_dim;
  const Place to = place_of(at, args);
  if (to.head.key_bits == 16) {
    store_halves(at, head, head_dim, halves_at(to, to.head.keys) + to.slot, kPageTokens, args.flag);
    return;
  }
  level_head(at, head, head_dim, to.head.key_channels, to.head.key_bits,
             halves_at(to, to.head.key_scales) + to.slot, levels, args.flag);
  put_key(at, to, levels);
}

EDGE_KERNEL(store_values, StoreArgs, kHeadThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(float, head, [kMostHeadDim]);
  EDGE_SHARED(float, lanes, [kLanes]);
  EDGE_SHARED(int8_t, levels, [kMostHeadDim]);
  load_head(at, args.heads, head, lanes);
  const int head_dim = args.heads.head_dim;
  const Place to = place_of(at, args);
  if (to.head.value_bits == 16) {
    store_halves(at, head, head_dim, halves_at(to, to.head.values) + to.slot * head_dim, 1,
                 args.flag);
    return;
  }
  level_head(at, head, head_dim, to.head.value_channels, to.head.value_bits,
             halves_at(to, to.head.value_scales) + to.slot, levels, args.flag);
  put_value(at, to, levels);
}

EDGE_EXPORT(finish_queries)
EDGE_EXPORT(store_keys)
EDGE_EXPORT(store_values)
