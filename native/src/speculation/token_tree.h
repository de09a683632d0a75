// TokenTree: drafted tokens of one step, for the step to verify in as many rows beside that of the
// last committed token. Nodes stand in topological order: a parent before its children.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace edge {

// Who proposed a token. Values are written into results: never renumber.
enum class DrafterKind : uint8_t { kSuffix, kStore, kRecycling, kHead, kExit, kExternal };
inline constexpr int kDrafterKinds = 6;

struct DraftNode {
  int32_t id = 0;
  int32_t parent = -1;  // an earlier node; -1: follows the last committed token
  // In a candidate: that it is right if its parent is, in [0, 1]. In a chosen tree: that it and all
  // above it are.
  float probability = 0.0F;
  DrafterKind drafter = DrafterKind::kSuffix;
  uint8_t bucket = 0;  // the drafter's own class of confidence, < kDraftBuckets
};
inline constexpr int kDraftBuckets = 128;

// A tree of at most kCapacity nodes; no two children of a node have the same id.
template <int kCapacity>
class DraftTree {
 public:
  static constexpr int kMaxNodes = kCapacity;

  int size() const { return n_; }
  bool empty() const { return n_ == 0; }
  bool full() const { return n_ == kCapacity; }
  void clear() { n_ = 0; }
  // Leaves the first n nodes, which are a tree too.
  void cut(int n) { n_ = std::min(n_, std::max(n, 0)); }
  const DraftNode& operator[](int i) const { return nodes_[static_cast<size_t>(i)]; }
  DraftNode& operator[](int i) { return nodes_[static_cast<size_t>(i)]; }
  const DraftNode* begin() const { return nodes_.data(); }
  const DraftNode* end() const { return nodes_.data() + n_; }

  // The child of `parent` with this id, or -1. `parent` may be -1.
  int child(int parent, int32_t id) const {
    for (int i = parent + 1; i < n_; ++i) {
      if ((*this)[i].parent == parent && (*this)[i].id == id) return i;
    }
    return -1;
  }
  // The index of the node, which is new or was there; one that was there keeps the claim of the
  // higher probability. -1: the tree is full or the parent is none of its nodes.
  int add(const DraftNode& node) {
    if (node.parent < -1 || node.parent >= n_) return -1;
    const int known = child(node.parent, node.id);
    if (known >= 0) {
      if (node.probability > (*this)[known].probability) (*this)[known] = node;
      return known;
    }
    if (full()) return -1;
    (*this)[n_] = node;
    return n_++;
  }
  // Tokens from the last committed one to this node: 1 for its children, 0 for -1.
  int depth(int i) const {
    int d = 0;
    for (; i >= 0; i = (*this)[i].parent) ++d;
    return d;
  }
  bool is_chain() const {
    for (int i = 0; i < n_; ++i) {
      if ((*this)[i].parent != i - 1) return false;
    }
    return true;
  }

 private:
  std::array<DraftNode, static_cast<size_t>(kCapacity)> nodes_{};
  int n_ = 0;
};

// What a step verifies: with the last committed token's at most 16 rows.
using TokenTree = DraftTree<15>;
// What drafters propose and the best of which become a TokenTree.
using Candidates = DraftTree<96>;

}  // namespace edge
