// How pages hold keys and values: the formats, and where the parts of one kv head lie. A page has
// 32 consecutive positions. docs/KERNELS.md gives the arithmetic, docs/KV.md the bytes per token.
//
// Per kv head, in this order; what is padded is zero and never read into a result:
//   F16    keys f16 [head_dim][32] (transposed: 16 positions are one vector), values f16
//          [32][head_dim]
//   K8     keys u8 [head_dim / 4 rounded up][32][4], k + 128, then scales f16 [n_scales][32]
//   V8     values u8 [8][head_dim rounded up to 16][4], v + 128, the four bytes being positions 0,
//   2,
//          1 and 3 of four, then scales f16 [n_scales][32]
// One scale is for g = head_dim / ceil(head_dim / 64) channels, rounded up to 16, of one token:
// what a token takes depends on nothing but that token.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace edge {

constexpr int kPageTokens = 32;

enum class KvFormat : uint8_t { kF16, kK8V8 };

constexpr struct {
  KvFormat format;
  const char* name;
} kKvFormats[] = {{KvFormat::kF16, "F16"}, {KvFormat::kK8V8, "K8V8"}};

// Where the parts of one kv head begin, in bytes from the beginning of its page.
struct KvHeadParts {
  size_t keys = 0;
  size_t key_scales = 0;
  size_t values = 0;
  size_t value_scales = 0;
};

// The key and value of one token, layer and kv head.
struct KvSlot {
  uint8_t* page = nullptr;
  KvFormat format = KvFormat::kF16;
  KvHeadParts parts;
  int head_dim = 0;
  int scale_channels = 0;
  int slot = 0;  // 0..31
};

// Channels that share a scale; the last ones of a head may be fewer.
constexpr int kv_scale_channels(int head_dim) {
  const int n_groups = (head_dim + 63) / 64;
  return ((head_dim + n_groups - 1) / n_groups + 15) / 16 * 16;
}
constexpr int kv_n_scales(int head_dim) {
  return (head_dim + kv_scale_channels(head_dim) - 1) / kv_scale_channels(head_dim);
}

// Of a head that begins at byte 0.
constexpr KvHeadParts kv_head_parts(KvFormat format, int head_dim) {
  const auto dim = static_cast<size_t>(head_dim);
  KvHeadParts parts;
  if (format == KvFormat::kF16) {
    parts.key_scales = parts.values = kPageTokens * dim * sizeof(uint16_t);
    parts.value_scales = 2 * parts.values;
    return parts;
  }
  const size_t scale_bytes =
      static_cast<size_t>(kv_n_scales(head_dim)) * kPageTokens * sizeof(uint16_t);
  parts.key_scales = kPageTokens * ((dim + 3) / 4 * 4);
  parts.values = parts.key_scales + scale_bytes;
  parts.value_scales = parts.values + kPageTokens * ((dim + 15) / 16 * 16);
  return parts;
}

// Keys and values of one head in a page.
constexpr size_t kv_head_bytes(KvFormat format, int head_dim) {
  const size_t end = kv_head_parts(format, head_dim).value_scales;
  if (format == KvFormat::kF16) return end;
  return end + static_cast<size_t>(kv_n_scales(head_dim)) * kPageTokens * sizeof(uint16_t);
}

}  // namespace edge
