// Byte geometry of KV pages, shared by the planner (sizes), the cache (allocation) and the backends
// (kernels). A page holds the keys and values of 32 consecutive positions of one sequence for every
// layer.
//
// F16 page: per layer, for each kv head: keys as f16 [head_dim][32] (transposed, so that 16
// positions are one vector), then values as f16 [32][head_dim].
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edge {

constexpr int kPageTokens = 32;

struct KvLayerLayout {
  size_t offset_bytes = 0;  // of the layer inside a page
  int n_kv_heads = 0;
  int head_dim = 0;

  size_t head_bytes() const {  // keys and values of one head
    return size_t{2} * kPageTokens * static_cast<size_t>(head_dim) * sizeof(uint16_t);
  }
  size_t layer_bytes() const { return head_bytes() * static_cast<size_t>(n_kv_heads); }
  size_t key_offset(int kv_head) const {
    return offset_bytes + head_bytes() * static_cast<size_t>(kv_head);
  }
  size_t value_offset(int kv_head) const { return key_offset(kv_head) + head_bytes() / 2; }
};

struct KvLayout {
  std::vector<KvLayerLayout> layers;
  size_t page_bytes = 0;
};

// The pages of one sequence: position p lives in pages[p / 32], slot p % 32. Not owning.
struct KvView {
  std::byte* const* pages = nullptr;
  int n_pages = 0;
};

}  // namespace edge
