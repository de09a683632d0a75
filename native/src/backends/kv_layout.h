// Byte geometry of KV pages, shared by the planner (sizes), the cache (allocation) and the backends
// (kernels). Layers with the same window are a group; a page holds the keys and values of 32
// consecutive positions of one sequence for the layers of one group. So a group with a window can
// let go of pages that no query sees any more.
//
// F16 page: per layer, for each kv head: keys as f16 [head_dim][32] (transposed, so that 16
// positions are one vector), then values as f16 [32][head_dim].
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edge {

constexpr int kPageTokens = 32;
// A group with a window keeps so many positions before those that the newest query sees: no step
// has more rows, and rewinding so far costs nothing.
constexpr int kKeptTokens = 128;

struct KvLayerLayout {
  size_t offset_bytes = 0;  // of the layer inside a page of its group
  int n_kv_heads = 0;
  int head_dim = 0;
  int group = 0;

  size_t head_bytes() const {  // keys and values of one head
    return size_t{2} * kPageTokens * static_cast<size_t>(head_dim) * sizeof(uint16_t);
  }
  size_t layer_bytes() const { return head_bytes() * static_cast<size_t>(n_kv_heads); }
  size_t key_offset(int kv_head) const {
    return offset_bytes + head_bytes() * static_cast<size_t>(kv_head);
  }
  size_t value_offset(int kv_head) const { return key_offset(kv_head) + head_bytes() / 2; }
};

struct KvGroup {
  int window = 0;  // > 0: a query at p sees p - window < j <= p
  size_t page_bytes = 0;
  size_t first_page_bytes = 0;  // of page 0, which may be in another format; 0: page_bytes

  size_t bytes_of(size_t page_number) const {
    return page_number == 0 && first_page_bytes > 0 ? first_page_bytes : page_bytes;
  }
};

struct KvLayout {
  std::vector<KvLayerLayout> layers;
  std::vector<KvGroup> groups;  // by ascending window; none is empty, and there is at least one
};

// The pages of one group: position p lives in pages[p / 32], slot p % 32. Those that no query sees
// any more are null.
struct KvTable {
  std::byte* const* pages = nullptr;
  int n_pages = 0;
};

// The pages of one sequence, a table for each group. Not owning.
struct KvView {
  const KvTable* tables = nullptr;
};

}  // namespace edge
