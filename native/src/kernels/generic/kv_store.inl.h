// Keys and values to the formats of kernels/kv_format.h, written once on vec16.h, included inside
// each ISA's namespace. kernels/attention.h gives the contract.
#include "kernels/generic/rows.inl.h"

namespace {

constexpr int kMaxScaleChannels = 64;

// The bits of the largest magnitude of n values; above 0x7f7fffff some value is not finite.
EDGE_INLINE I magnitude_bits(const float* x, int n) {
  I largest = zero_i();
  EDGE_FOR_LANES(i, lanes, n) {
    largest = max(largest, bit_and(as_i(load_some(x + i, lanes)), set1_i(0x7fffffff)));
  }
  return set1_i(reduce_max_i(largest));
}

EDGE_INLINE bool is_finite(I bits) { return !any(cmp_gt(bits, set1_i(0x7f7fffff))); }
// Whether an f16 of it is finite: below 65520.
EDGE_INLINE bool fits_f16(I bits) { return !any(cmp_gt(bits, set1_i(0x477fefff))); }

// round_even(x * inverse) within -127..127 of n values to q, as many as n rounded up to 16.
EDGE_INLINE void to_levels(const float* x, int n, V inverse, int8_t* q) {
  const I limit = set1_i(127);
  EDGE_FOR_LANES(i, lanes, n) {
    const I level = to_int(mul(load_some(x + i, lanes), inverse));
    store_i8(q + i, max(min(level, limit), sub(zero_i(), limit)));
  }
}

// The f16 scale of int8 levels of n values, amax / 127 rounded, and those levels.
EDGE_INLINE bool int8_group(const float* x, int n, uint16_t* scale, int8_t* q) {
  const I bits = magnitude_bits(x, n);
  if (!is_finite(bits)) return false;
  uint16_t halves[16];
  store_f16(halves, div(as_f(bits), set1(127.0f)));
  constexpr uint16_t kInfinity = 0x7c00;
  if (halves[0] == kInfinity) return false;
  *scale = halves[0];
  const V step = load_f16(halves);
  to_levels(x, n, select(cmp_eq(step, zero()), zero(), div(set1(1.0f), step)), q);
  return true;
}

EDGE_INLINE int group_length(int head_dim, int begin, int scale_channels) {
  return head_dim - begin < scale_channels ? head_dim - begin : scale_channels;
}

bool quantize_query(const float* query, int head_dim, int scale_channels, const QueryInt8& out) {
  for (int begin = 0, group = 0; begin < head_dim; begin += scale_channels, ++group) {
    const int n = group_length(head_dim, begin, scale_channels);
    const I bits = magnitude_bits(query + begin, n);
    if (!is_finite(bits)) return false;
    const V amax = as_f(bits);
    const M is_zero = cmp_lt(amax, set1(0x1p-100f));
    const V levels = set1(127.0f);
    int8_t q[kMaxScaleChannels];
    to_levels(query + begin, n, select(is_zero, zero(), div(levels, amax)), q);
    store_n(out.scale + group, select(is_zero, zero(), div(amax, levels)), 1);
    int32_t sum = 0;
    for (int i = 0; i < n; ++i) sum += q[i];
    out.sum[group] = sum;
    memcpy(out.q + begin, q, static_cast<size_t>(n));
  }
  for (int i = head_dim; i % 4 != 0; ++i) out.q[i] = 0;
  return true;
}

EDGE_INLINE uint16_t* scales_at(const KvSlot& at, size_t part) {
  return reinterpret_cast<uint16_t*>(at.page + part) + at.slot;
}

void store_f16_key(const KvSlot& to, const float* key) {
  uint16_t* column = scales_at(to, to.parts.keys);
  EDGE_FOR_LANES(i, lanes, to.head_dim) {
    uint16_t halves[16];
    store_f16(halves, load_some(key + i, lanes));
    for (int64_t l = 0; l < lanes; ++l) column[(i + l) * kPageTokens] = halves[l];
  }
}

void store_f16_value(const KvSlot& to, const float* value) {
  uint16_t* row = reinterpret_cast<uint16_t*>(to.page + to.parts.values) + to.slot * to.head_dim;
  EDGE_FOR_LANES(i, lanes, to.head_dim) {
    uint16_t halves[16];
    store_f16(halves, load_some(value + i, lanes));
    memcpy(row + i, halves, static_cast<size_t>(lanes) * sizeof(uint16_t));
  }
}

bool store_key(const KvSlot& to, const float* key) {
  if (to.format == KvFormat::kF16) {
    store_f16_key(to, key);
    return fits_f16(magnitude_bits(key, to.head_dim));
  }
  uint16_t* scale = scales_at(to, to.parts.key_scales);
  for (int begin = 0; begin < to.head_dim; begin += to.scale_channels, scale += kPageTokens) {
    const int n = group_length(to.head_dim, begin, to.scale_channels);
    int8_t q[kMaxScaleChannels];
    if (!int8_group(key + begin, n, scale, q)) return false;
    uint8_t* quad = to.page + to.parts.keys + begin * kPageTokens + to.slot * 4;
    for (int i = 0; i < n; ++i) {
      quad[i / 4 * 4 * kPageTokens + i % 4] = static_cast<uint8_t>(q[i] + 128);
    }
  }
  return true;
}

bool store_value(const KvSlot& to, const float* value) {
  if (to.format == KvFormat::kF16) {
    store_f16_value(to, value);
    return fits_f16(magnitude_bits(value, to.head_dim));
  }
  const int row_bytes = 4 * ((to.head_dim + 15) / 16 * 16);
  constexpr int kByteOf[4] = {0, 2, 1, 3};
  uint8_t* row = to.page + to.parts.values + to.slot / 4 * row_bytes + kByteOf[to.slot % 4];
  uint16_t* scale = scales_at(to, to.parts.value_scales);
  for (int begin = 0; begin < to.head_dim; begin += to.scale_channels, scale += kPageTokens) {
    const int n = group_length(to.head_dim, begin, to.scale_channels);
    int8_t q[kMaxScaleChannels];
    if (!int8_group(value + begin, n, scale, q)) return false;
    for (int i = 0; i < n; ++i) row[4 * (begin + i)] = static_cast<uint8_t>(q[i] + 128);
  }
  return true;
}

EDGE_INLINE float half_lane(uint16_t half) {
  uint16_t halves[16] = {half};
  float lanes[16];
  store(lanes, load_f16(halves));
  return lanes[0];
}

void load_key(const KvSlot& from, float* key) {
  if (from.format == KvFormat::kF16) {
    const uint16_t* column = scales_at(from, from.parts.keys);
    for (int i = 0; i < from.head_dim; ++i) key[i] = half_lane(column[i * kPageTokens]);
    return;
  }
  const uint16_t* scale = scales_at(from, from.parts.key_scales);
  for (int begin = 0; begin < from.head_dim; begin += from.scale_channels, scale += kPageTokens) {
    const float step = half_lane(*scale);
    const uint8_t* quad = from.page + from.parts.keys + begin * kPageTokens + from.slot * 4;
    const int n = group_length(from.head_dim, begin, from.scale_channels);
    for (int i = 0; i < n; ++i) {
      const int level = quad[i / 4 * 4 * kPageTokens + i % 4] - 128;
      key[begin + i] = static_cast<float>(level) * step;
    }
  }
}

}  // namespace
