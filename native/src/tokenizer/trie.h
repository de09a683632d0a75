// A trie over bytes, used in place in the blob: nodes in breadth-first order, the children of a
// node side by side and sorted. Knows values, not what they mean.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/status.h"
#include "tokenizer/blob.h"

namespace edge {

class ByteTrie {
 public:
  static constexpr uint32_t kRoot = 0;
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kMaxDepth = 512;  // bounds the work at one position of a text

  // Reads a trie and checks all of it; values are below `n_values`.
  static Result<ByteTrie> create(SectionReader& reader, const std::string& where,
                                 uint32_t n_values);

  // The child of `node` over `byte`, or kNone.
  uint32_t child(uint32_t node, uint8_t byte) const {
    if (node == kRoot) return root_[byte];
    uint32_t low = first_child_[node];
    uint32_t high = first_child_[size_t{node} + 1];
    const uint32_t end = high;
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      if (labels_[middle] < byte) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low < end && labels_[low] == byte ? low : kNone;
  }
  uint32_t value(uint32_t node) const { return values_[node]; }  // kNone = nothing ends here

  // Calls check(value, depth) for every value until one gives an error.
  template <class F>
  Status for_each_value(F&& check) const {
    uint32_t depth = 0;
    uint32_t level_end = 1;
    for (uint32_t node = 0; node < values_.size(); ++node) {
      if (node == level_end) {
        ++depth;
        level_end = first_child_[node];
      }
      if (values_[node] != kNone) EDGE_RETURN_IF_ERROR(check(values_[node], depth));
    }
    return Status::ok();
  }

 private:
  Status check(const std::string& where, uint32_t n_values) const;

  TableView<uint32_t> first_child_;  // [n_nodes + 1]
  TableView<uint32_t> values_;       // [n_nodes]
  TableView<uint8_t> labels_;        // [n_nodes] byte that leads here; 0 at the root
  std::array<uint32_t, 256> root_{};
};

}  // namespace edge
