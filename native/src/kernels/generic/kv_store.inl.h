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

// The levels of a format.
struct Levels {
  int least;
  int most;
};

// round_even(x * inverse) within the levels of n values to q, as many as n rounded up to 16.
EDGE_INLINE void to_levels(const float* x, int n, V inverse, Levels levels, int8_t* q) {
  const I least = set1_i(levels.least), most = set1_i(levels.most);
  EDGE_FOR_LANES(i, lanes, n) {
    const I level = to_int(mul(load_some(x + i, lanes), inverse));
    store_i8(q + i, max(min(level, most), least));
  }
}

// Levels of n values, and their f16 scale: -amax / least rounded. Where there are more levels on
// one side, the largest value is to be there, and the scale may be negative.
EDGE_INLINE bool level_group(const float* x, int n, Levels levels, uint16_t* scale, int8_t* q) {
  const I bits = magnitude_bits(x, n);
  if (!is_finite(bits)) return false;
  V extreme = neg(as_f(bits));
  if (levels.least != -levels.most) {
    I largest = zero_i();
    EDGE_FOR_LANES(i, lanes, n) largest = max(largest, as_i(load_some(x + i, lanes)));
    extreme = select(cmp_eq(set1_i(reduce_max_i(largest)), bits), as_f(bits), extreme);
  }
  uint16_t halves[16];
  store_f16(halves, div(extreme, set1(static_cast<float>(levels.least))));
  constexpr uint16_t kInfinity = 0x7c00;
  if ((halves[0] & kInfinity) == kInfinity) return false;
  *scale = halves[0];
  const V step = load_f16(halves);
  to_levels(x, n, select(cmp_eq(step, zero()), zero(), div(set1(1.0f), step)), levels, q);
  return true;
}

EDGE_INLINE int group_length(int head_dim, int begin, int channels) {
  return head_dim - begin < channels ? head_dim - begin : channels;
}

bool quantize_query(const float* query, int head_dim, int channels, const QueryInt8& out) {
  for (int begin = 0, group = 0; begin < head_dim; begin += channels, ++group) {
    const int n = group_length(head_dim, begin, channels);
    const I bits = magnitude_bits(query + begin, n);
    if (!is_finite(bits)) return false;
    const V amax = as_f(bits);
    const M is_zero = cmp_lt(amax, set1(0x1p-100f));
    const V levels = set1(127.0f);
    int8_t q[kMaxScaleChannels];
    to_levels(query + begin, n, select(is_zero, zero(), div(levels, amax)), {-127, 127}, q);
    store_n(out.scale + group, select(is_zero, zero(), div(amax, levels)), 1);
    int32_t sum = 0;
    for (int i = 0; i < n; ++i) sum += q[i];
    out.sum[group] = sum;
    memcpy(out.q + begin, q, static_cast<size_t>(n));
  }
  for (int i = head_dim; i % 4 != 0; ++i) out.q[i] = 0;
  return true;
}

EDGE_INLINE uint16_t* halves_at(const KvSlot& at, size_t part) {
  return reinterpret_cast<uint16_t*>(at.page + part);
}

bool store_f16_key(const KvSlot& to, const float* key) {
  uint16_t* column = halves_at(to, to.head.keys) + to.slot;
  EDGE_FOR_LANES(i, lanes, to.head.head_dim) {
    uint16_t halves[16];
    store_f16(halves, load_some(key + i, lanes));
    for (int64_t l = 0; l < lanes; ++l) column[(i + l) * kPageTokens] = halves[l];
  }
  return fits_f16(magnitude_bits(key, to.head.head_dim));
}

bool store_f16_value(const KvSlot& to, const float* value) {
  uint16_t* row = halves_at(to, to.head.values) + to.slot * to.head.head_dim;
  EDGE_FOR_LANES(i, lanes, to.head.head_dim) {
    uint16_t halves[16];
    store_f16(halves, load_some(value + i, lanes));
    memcpy(row + i, halves, static_cast<size_t>(lanes) * sizeof(uint16_t));
  }
  return fits_f16(magnitude_bits(value, to.head.head_dim));
}

// q: of n channels from `begin` on, a multiple of 16.
EDGE_INLINE void put_keys6(uint8_t* planes, int begin, int n, const int8_t* q) {
  for (int i = 0; i < n; ++i) {
    const int quad = (begin + i) / 4, in_four = quad % 4;
    uint8_t* at = planes + quad / 4 * 3 * kPlaneBytes + i % 4;
    const int level = q[i] + 32;
    if (in_four < 3) {
      at[in_four * kPlaneBytes] = static_cast<uint8_t>(level);
      continue;
    }
    for (int plane = 0; plane < 3; ++plane) {
      at[plane * kPlaneBytes] |= static_cast<uint8_t>((level >> 2 * plane & 3) << 6);
    }
  }
}

EDGE_INLINE void put_keys8(uint8_t* quads, int begin, int n, const int8_t* q) {
  for (int i = 0; i < n; ++i) {
    quads[(begin + i) / 4 * kPlaneBytes + i % 4] = static_cast<uint8_t>(q[i] + 128);
  }
}

bool store_key(const KvSlot& to, const float* key) {
  const KvHead& head = to.head;
  if (head.key_bits == 16) return store_f16_key(to, key);
  const Levels levels = head.key_bits == 8 ? Levels{-127, 127} : Levels{-31, 31};
  uint16_t* scale = halves_at(to, head.key_scales) + to.slot;
  uint8_t* bytes = to.page + head.keys + to.slot * 4;
  for (int begin = 0; begin < head.head_dim; begin += head.key_channels, scale += kPageTokens) {
    const int n = group_length(head.head_dim, begin, head.key_channels);
    int8_t q[kMaxScaleChannels];
    if (!level_group(key + begin, n, levels, scale, q)) return false;
    head.key_bits == 8 ? put_keys8(bytes, begin, n, q) : put_keys6(bytes, begin, n, q);
  }
  return true;
}

// Bytes of one position, every fourth of its row of four; `begin` as for keys.
EDGE_INLINE void put_values4(uint8_t* row, int begin, int n, const int8_t* q) {
  for (int i = 0; i < n; ++i) {
    const int channel = begin + i, level = q[i] + 8;
    uint8_t& byte = row[4 * (channel / 32 * 16 + channel % 16)];
    byte = static_cast<uint8_t>(channel % 32 < 16 ? level : byte | level << 4);
  }
}

EDGE_INLINE void put_values8(uint8_t* row, int begin, int n, const int8_t* q) {
  for (int i = 0; i < n; ++i) row[4 * (begin + i)] = static_cast<uint8_t>(q[i] + 128);
}

bool store_value(const KvSlot& to, const float* value) {
  const KvHead& head = to.head;
  if (head.value_bits == 16) return store_f16_value(to, value);
  const Levels levels = head.value_bits == 8 ? Levels{-127, 127} : Levels{-8, 7};
  constexpr int kByteOf[4] = {0, 2, 1, 3};
  uint8_t* row = to.page + head.values + to.slot / 4 * head.value_row_bytes + kByteOf[to.slot % 4];
  uint16_t* scale = halves_at(to, head.value_scales) + to.slot;
  for (int begin = 0; begin < head.head_dim; begin += head.value_channels, scale += kPageTokens) {
    const int n = group_length(head.head_dim, begin, head.value_channels);
    int8_t q[kMaxScaleChannels];
    if (!level_group(value + begin, n, levels, scale, q)) return false;
    head.value_bits == 8 ? put_values8(row, begin, n, q) : put_values4(row, begin, n, q);
  }
  return true;
}

}  // namespace
