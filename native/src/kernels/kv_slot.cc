#include "kernels/kv_slot.h"

#include <cstring>

#include "base/half.h"

namespace edge {
namespace {

constexpr size_t kPlaneBytes = size_t{4} * kPageTokens;  // of keys: four bytes of each position

float half_at(const uint8_t* part, size_t index) {
  uint16_t half;
  std::memcpy(&half, part + index * sizeof half, sizeof half);
  return half_to_float(half);
}

// The byte of a channel's quad in a plane of keys.
uint8_t* key_byte(const KvSlot& at, size_t plane, size_t channel) {
  return at.page + at.head.keys + plane * kPlaneBytes + static_cast<size_t>(at.slot) * 4 +
         channel % 4;
}

int key_level(const KvSlot& at, size_t channel) {
  const size_t quad = channel / 4;
  if (at.head.key_bits == 8) return *key_byte(at, quad, channel) - 128;
  const size_t plane = quad / 4 * 3;
  if (quad % 4 < 3) return (*key_byte(at, plane + quad % 4, channel) & 63) - 32;
  int level = 0;
  for (size_t i = 0; i < 3; ++i) level |= *key_byte(at, plane + i, channel) >> 6 << 2 * i;
  return level - 32;
}

// The first of a position's bytes in its row of four, of which every fourth is its own.
uint8_t* value_bytes(const KvSlot& at) {
  constexpr size_t kByteOf[4] = {0, 2, 1, 3};
  const auto row = static_cast<size_t>(at.slot / 4 * at.head.value_row_bytes);
  return at.page + at.head.values + row + kByteOf[at.slot % 4];
}

int value_level(const KvSlot& at, size_t channel) {
  if (at.head.value_bits == 8) return value_bytes(at)[4 * channel] - 128;
  const int byte = value_bytes(at)[4 * (channel / 32 * 16 + channel % 16)];
  return (channel % 32 < 16 ? byte & 15 : byte >> 4) - 8;
}

template <class Level>
void load_levels(const KvSlot& from, size_t scales, int channels, const Level& level, float* out) {
  for (size_t i = 0; i < static_cast<size_t>(from.head.head_dim); ++i) {
    const size_t group = i / static_cast<size_t>(channels);
    const float step =
        half_at(from.page + scales, group * kPageTokens + static_cast<size_t>(from.slot));
    out[i] = static_cast<float>(level(from, i)) * step;
  }
}

// n pieces of piece_bytes, each `stride` behind the one before.
void copy_pieces(const uint8_t* from, uint8_t* to, int n, size_t stride, size_t piece_bytes) {
  for (int i = 0; i < n; ++i) {
    std::memcpy(to + static_cast<size_t>(i) * stride, from + static_cast<size_t>(i) * stride,
                piece_bytes);
  }
}

// Elements of 16 bits, one of each position's.
void copy_halves(const KvSlot& from, const KvSlot& to, size_t KvHead::* part, int n) {
  const auto at = [part](const KvSlot& slot) {
    return slot.page + slot.head.*part + static_cast<size_t>(slot.slot) * sizeof(uint16_t);
  };
  copy_pieces(at(from), at(to), n, kPageTokens * sizeof(uint16_t), sizeof(uint16_t));
}

uint8_t* f16_value(const KvSlot& at) {
  return at.page + at.head.values +
         static_cast<size_t>(at.slot * at.head.head_dim) * sizeof(uint16_t);
}

}  // namespace

void load_key(const KvSlot& from, float* key) {
  const KvHead& head = from.head;
  if (head.key_bits < 16)
    return load_levels(from, head.key_scales, head.key_channels, key_level, key);
  for (size_t i = 0; i < static_cast<size_t>(head.head_dim); ++i) {
    key[i] = half_at(from.page + head.keys, i * kPageTokens + static_cast<size_t>(from.slot));
  }
}

void load_value(const KvSlot& from, float* value) {
  const KvHead& head = from.head;
  if (head.value_bits < 16) {
    return load_levels(from, head.value_scales, head.value_channels, value_level, value);
  }
  for (size_t i = 0; i < static_cast<size_t>(head.head_dim); ++i) {
    value[i] = half_at(f16_value(from), i);
  }
}

void move_slot(const KvSlot& from, const KvSlot& to) {
  const KvHead& head = from.head;
  if (head.key_bits == 16) {
    copy_halves(from, to, &KvHead::keys, head.head_dim);
  } else {
    const int n_planes = kv_key_bytes(head.head_dim, head.key_bits) / 4;
    copy_pieces(key_byte(from, 0, 0), key_byte(to, 0, 0), n_planes, kPlaneBytes, 4);
    copy_halves(from, to, &KvHead::key_scales, kv_n_scales(head.head_dim, head.key_bits));
  }
  const int n_bytes = kv_value_bytes(head.head_dim, head.value_bits);
  if (head.value_bits == 16) {
    std::memcpy(f16_value(to), f16_value(from), static_cast<size_t>(n_bytes));
  } else {
    copy_pieces(value_bytes(from), value_bytes(to), n_bytes, 4, 1);
    copy_halves(from, to, &KvHead::value_scales, kv_n_scales(head.head_dim, head.value_bits));
  }
}

}  // namespace edge
