// Byte geometry of KV pages, shared by the planner (sizes), the cache (allocation) and the backends
// (kernels). Layers with the same window are a group; a page holds the keys and values of 16
// consecutive positions of one sequence for the layers of one group. So a group with a window can
// let go of pages that no query sees any more.
// kernels/kv_format.h gives what a page holds of one kv head, and the format of the first pages,
// which may be another; the heads of a layer follow each other.
// A recurrent layer has no heads. Its state is what it makes of each of the last tokens, a row of
// floats a token: a group with a window, like theirs, but for what the prefix tree keeps of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kv_format.h"

namespace edge {

// A group with a window keeps so many positions before those that the newest query sees: no step
// has more rows, and rewinding so far costs nothing.
constexpr int kKeptTokens = 128;

struct KvLayerLayout {
  size_t offset_bytes = 0;  // of the layer inside a page of its group
  int n_kv_heads = 0;
  int head_dim = 0;
  int group = 0;
  KvFormat format = KvFormat::kF16;
  size_t first_offset_bytes = 0;  // in the first pages
  // How keys stand, and queries meet them, in all pages: cpu/stored_keys.h.
  bool mixes_keys = false;
  bool balances_keys = false;
  size_t state_cols = 0;  // > 0: of a recurrent layer, the floats of a token's row; no heads

  bool has_own_first_pages() const { return kv_first_format(format) != format; }
  KvFormat format_of(int page_number) const {
    return page_number < kFirstPages ? kv_first_format(format) : format;
  }
  size_t layer_bytes(int page_number) const {
    if (state_cols > 0) return kPageTokens * state_bytes();
    return kv_head_bytes(format_of(page_number), head_dim) * static_cast<size_t>(n_kv_heads);
  }
  KvHead head(int page_number, int kv_head_index) const {
    const size_t begin = page_number < kFirstPages ? first_offset_bytes : offset_bytes;
    return kv_head(format_of(page_number), head_dim, begin, kv_head_index);
  }
  size_t state_bytes() const { return state_cols * sizeof(float); }  // of a token
  // [state_cols] of slot `number` of a sequence, whose page is `page`.
  float* state_row(std::byte* page, int number) const {
    const auto at = static_cast<size_t>(number % kPageTokens);
    return reinterpret_cast<float*>(page + offset_bytes + at * state_bytes());
  }
  // Slot `number` of a sequence, whose page is `page`.
  KvSlot slot(std::byte* page, int number, int kv_head_index) const {
    return {.page = reinterpret_cast<uint8_t*>(page),
            .head = head(number / kPageTokens, kv_head_index),
            .slot = number % kPageTokens};
  }
};

struct KvGroup {
  int window = 0;  // > 0: a query at p sees p - window < j <= p
  size_t page_bytes = 0;
  size_t first_page_bytes = 0;  // of each of the first pages; 0: page_bytes
  bool is_state = false;        // of recurrent layers

  bool has_own_first_pages() const { return bytes_of(0) != page_bytes; }
  size_t bytes_of(size_t page_number) const {
    return page_number < kFirstPages && first_page_bytes > 0 ? first_page_bytes : page_bytes;
  }
};

struct KvLayout {
  std::vector<KvLayerLayout> layers;
  // By ascending window, recurrent ones last; none is empty, and there is at least one.
  std::vector<KvGroup> groups;
};

// The pages of one group: slot s lives in pages[s / 16], place s % 16. Those that no query sees
// any more are null.
struct KvTable {
  std::byte* const* pages = nullptr;
  int n_pages = 0;
};

// The pages of one sequence, a table for each group. Not owning.
// stamp: where it is the same as before, the slots that steps have written hold what the last of
// those wrote; whoever else changes them gives another one, which no sequence has had. 0: unknown.
struct KvView {
  const KvTable* tables = nullptr;
  uint64_t stamp = 0;
};

}  // namespace edge
