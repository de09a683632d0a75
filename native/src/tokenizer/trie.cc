#include "tokenizer/trie.h"

namespace edge {

namespace {
constexpr uint32_t kMaxNodes = 1u << 27;
}  // namespace

Result<ByteTrie> ByteTrie::create(SectionReader& reader, const std::string& where,
                                  uint32_t n_values) {
  const uint32_t n_nodes = reader.u32();
  if (reader.failed() || n_nodes == 0 || n_nodes > kMaxNodes) {
    return invalid_tokenizer(where + ": number of nodes is out of range");
  }
  ByteTrie trie;
  trie.first_child_ = TableView<uint32_t>(reader.take((uint64_t{n_nodes} + 1) * 4));
  trie.values_ = TableView<uint32_t>(reader.take(uint64_t{n_nodes} * 4));
  trie.labels_ = TableView<uint8_t>(reader.take(n_nodes));
  reader.align4();
  if (reader.failed()) return invalid_tokenizer(where + " is cut short");
  EDGE_RETURN_IF_ERROR(trie.check(where, n_values));
  trie.root_.fill(kNone);
  for (uint32_t node = trie.first_child_[0]; node < trie.first_child_[1]; ++node) {
    trie.root_[trie.labels_[node]] = node;
  }
  return trie;
}

// Children stand after their parent and every node but the root has one parent: so it is a tree.
Status ByteTrie::check(const std::string& where, uint32_t n_values) const {
  const auto n_nodes = static_cast<uint32_t>(values_.size());
  if (first_child_[0] != 1 || first_child_[n_nodes] != n_nodes || values_[0] != kNone) {
    return invalid_tokenizer(where + ": the root is damaged");
  }
  uint32_t depth = 0;
  uint32_t level_end = 1;
  for (uint32_t node = 0; node < n_nodes; ++node) {
    if (node == level_end) {
      ++depth;
      level_end = first_child_[node];
    }
    const uint32_t begin = first_child_[node];
    const uint32_t end = first_child_[size_t{node} + 1];
    if (begin <= node || end < begin || end > n_nodes) {
      return invalid_tokenizer(where + ": node " + std::to_string(node) + " is out of order");
    }
    for (uint32_t child = begin + 1; child < end; ++child) {
      if (labels_[child - 1] >= labels_[child]) {
        return invalid_tokenizer(where + ": children of node " + std::to_string(node) +
                                 " are not sorted");
      }
    }
    if (values_[node] != kNone && values_[node] >= n_values) {
      return invalid_tokenizer(where + ": value of node " + std::to_string(node) +
                               " is out of range");
    }
    if (depth > kMaxDepth) return invalid_tokenizer(where + " is too deep");
  }
  return Status::ok();
}

}  // namespace edge
