// How pages hold keys and values: the formats, and where the parts of one kv head lie. A page has
// 16 consecutive positions, one vector of them. docs/KERNELS.md gives the arithmetic, docs/KV.md
// the bytes per token.
//
// Per kv head keys, values, scales of keys, scales of values; what is padded is never read into a
// result. Scales are f16 [n_scales][16].
//   F16    keys f16 [head_dim][16] (transposed: the positions are one vector), values f16
//          [16][head_dim], no scales
//   K8     u8 [head_dim / 4 rounded up][16][4], k + 128: quads, four channels of each position
//   K6     u8 [head_dim / 16 rounded up][3][16][4], k + 32: four quads, of which the first three
//          are the low six bits of three bytes and the last their top bits, lowest first
//   V8     u8 [4][head_dim rounded up to 16][4], v + 128, the four bytes being positions 0, 2, 1
//          and 3 of four
//   V4     u8 [4][head_dim / 32 rounded up][16][4], v + 8, positions as in V8: the low half of a
//          byte is channel c of 32, the high half channel c + 16
// A scale is for some channels of one token: what a token takes depends on nothing but that token.
// Formats with values below 8 bits have the first 32 positions, which all attention goes to, as
// F16.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace edge {

constexpr int kPageTokens = 16;
constexpr int kFirstTokens = 32;  // of a sequence, whose pages may be in a format of their own
constexpr int kFirstPages = kFirstTokens / kPageTokens;

enum class KvFormat : uint8_t { kF16, kK8V8, kK8V4, kK6V4 };

struct KvFormatInfo {
  KvFormat format;
  const char* name;
  int key_bits;
  int value_bits;
};
constexpr KvFormatInfo kKvFormats[] = {{KvFormat::kF16, "F16", 16, 16},
                                       {KvFormat::kK8V8, "K8V8", 8, 8},
                                       {KvFormat::kK8V4, "K8V4", 8, 4},
                                       {KvFormat::kK6V4, "K6V4", 6, 4}};

// Of the first pages.
constexpr KvFormat kv_first_format(KvFormat format) {
  return kKvFormats[static_cast<size_t>(format)].value_bits < 8 ? KvFormat::kF16 : format;
}

// One kv head of a page. Offsets are in bytes from the beginning of the page.
struct KvHead {
  int head_dim = 0;
  int key_bits = 16;
  int value_bits = 16;
  int key_channels = 0;  // that share a scale; the last ones of a head may be fewer
  int value_channels = 0;
  int value_row_bytes = 0;  // of four positions, where values are below 16 bits
  size_t begin = 0;         // of the n_bytes that the head takes
  size_t n_bytes = 0;
  size_t keys = 0;
  size_t values = 0;
  size_t key_scales = 0;
  size_t value_scales = 0;
};

// The key and value of one token, layer and kv head.
struct KvSlot {
  uint8_t* page = nullptr;
  KvHead head;
  int slot = 0;  // 0..15
};

constexpr int kv_round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

// Channels that share a scale: up to 64, of which values of 4 bits lose 0.4 as much again as of 32.
constexpr int kv_scale_channels(int head_dim, int bits) {
  const int most = bits == 4 ? 32 : 64;
  const int n_groups = (head_dim + most - 1) / most;
  return kv_round_up((head_dim + n_groups - 1) / n_groups, 16);
}
constexpr int kv_n_scales(int head_dim, int bits) {
  const int channels = kv_scale_channels(head_dim, bits);
  return (head_dim + channels - 1) / channels;
}
// Of a query, in the groups of keys.
constexpr int kv_query_channels(int head_dim) { return kv_scale_channels(head_dim, 8); }

// Bytes of a token's key and value, without scales.
constexpr int kv_key_bytes(int head_dim, int bits) {
  if (bits == 6) return kv_round_up(head_dim, 16) / 4 * 3;
  return bits == 8 ? kv_round_up(head_dim, 4) : 2 * head_dim;
}
constexpr int kv_value_bytes(int head_dim, int bits) {
  if (bits == 4) return kv_round_up(head_dim, 32) / 2;
  return bits == 8 ? kv_round_up(head_dim, 16) : 2 * head_dim;
}

constexpr size_t kv_page_bytes(int token_bytes) {
  return static_cast<size_t>(kPageTokens) * static_cast<size_t>(token_bytes);
}
// Scales of a head's keys, or of its values.
constexpr size_t kv_scale_bytes(int head_dim, int bits) {
  return bits == 16 ? 0 : kv_page_bytes(2 * kv_n_scales(head_dim, bits));
}

// Head `index` of those that follow each other from byte `begin` of their page on. Of every second
// one scales come first: half a cache line of them would leave its keys and values across lines.
constexpr KvHead kv_head(KvFormat format, int head_dim, size_t begin = 0, int index = 0) {
  const KvFormatInfo& info = kKvFormats[static_cast<size_t>(format)];
  KvHead head{.head_dim = head_dim, .key_bits = info.key_bits, .value_bits = info.value_bits};
  head.key_channels = kv_scale_channels(head_dim, info.key_bits);
  head.value_channels = kv_scale_channels(head_dim, info.value_bits);
  head.value_row_bytes = 4 * kv_value_bytes(head_dim, info.value_bits);
  const size_t key_bytes = kv_page_bytes(kv_key_bytes(head_dim, info.key_bits));
  const size_t value_bytes = kv_page_bytes(kv_value_bytes(head_dim, info.value_bits));
  const size_t key_scale_bytes = kv_scale_bytes(head_dim, info.key_bits);
  const size_t scale_bytes = key_scale_bytes + kv_scale_bytes(head_dim, info.value_bits);
  const bool has_scales_first = index % 2 != 0;
  head.n_bytes = key_bytes + value_bytes + scale_bytes;
  head.begin = begin + static_cast<size_t>(index) * head.n_bytes;
  head.keys = has_scales_first ? head.begin + scale_bytes : head.begin;
  head.values = head.keys + key_bytes;
  head.key_scales = has_scales_first ? head.begin : head.values + value_bytes;
  head.value_scales = head.key_scales + key_scale_bytes;
  return head;
}

// Keys and values of one head in a page.
constexpr size_t kv_head_bytes(KvFormat format, int head_dim) {
  return kv_head(format, head_dim).n_bytes;
}

}  // namespace edge
