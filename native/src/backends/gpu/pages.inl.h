// Where kernels find keys and values: the page of a position, and the parts of a kv head in it
// (kernels/kv_format.h). Included after a dialect.
#pragma once

#include "backends/gpu/lane.inl.h"

namespace EDGE_DEVICE {

EDGE_CONSTANT int kPlaneBytes = 4 * kPageTokens;

// The kv head `number` of those of a layer that follow each other.
EDGE_FN KvPart head_of(EDGE_ARGS PagesArgs& pages, bool is_first, int number) {
  EDGE_ARGS KvPart& from = is_first ? pages.first[number % 2] : pages.other[number % 2];
  const uint64_t shift = static_cast<uint64_t>(number / 2 * 2) * from.n_bytes;
  KvPart head;
  head.head_dim = from.head_dim;
  head.key_bits = from.key_bits;
  head.value_bits = from.value_bits;
  head.key_channels = from.key_channels;
  head.value_channels = from.value_channels;
  head.value_row_bytes = from.value_row_bytes;
  head.n_bytes = from.n_bytes;
  head.keys = from.keys + shift;
  head.values = from.values + shift;
  head.key_scales = from.key_scales + shift;
  head.value_scales = from.value_scales + shift;
  return head;
}

EDGE_FN float half_in(EDGE_GLOBAL const uint8_t* page, uint64_t part, int i) {
  return half_to_float(reinterpret_cast<EDGE_GLOBAL const uint16_t*>(page + part)[i]);
}

// Of four positions that stand together, where the one of place `place` does.
EDGE_FN int value_byte(int place) { return place % 4 == 1 ? 2 : place % 4 == 2 ? 1 : place % 4; }

// Where a token that the row sees stands.
EDGE_FN int slot_of(EDGE_GLOBAL const Row& row, int position) {
  const bool is_before = row.n_tail == 0 || position < row.tail[0];
  return is_before ? position : row.tail[position - row.tail[0]];
}

}  // namespace EDGE_DEVICE
