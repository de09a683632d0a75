// Lookahead: drafted tokens beyond the last one of a sequence, whose rows a step makes together
// with that one's. Integers only: it knows slots, not bytes.
//
// Rows come in the order of the slots behind that of the sequence's own row. The likeliest path
// comes first, so that its tokens stand where they would without drafts; others are moved there
// when they come true. A node stands behind its parent, so that nothing is moved to where a node
// still waits.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "backends/backend.h"
#include "speculation/token_tree.h"

namespace edge {

class Lookahead {
 public:
  // To be part of the next step. only_path: nothing that would have to be moved.
  void plan(const TokenTree& tree, bool only_path);
  int n_planned() const { return planned_.size(); }
  // The step has the first n_nodes planned ones; the sequence's own row is in `slot`.
  void begin(int slot, int n_nodes);
  // It was made: they can come true from now on.
  void arm() { n_live_ = tree_.size(); }
  void clear() { n_live_ = 0, planned_.clear(); }

  // Of the step.
  int size() const { return tree_.size(); }
  const DraftNode& node(int i) const { return tree_[i]; }
  int slot(int i) const { return slot_ + 1 + i; }
  int depth(int i) const { return tree_.depth(i); }
  std::span<const int32_t> tail(int i) const;  // as in RowInput

  bool is_armed() const { return n_live_ > 0; }
  // The node that `id` would make true now, or -1.
  int find(int32_t id) const { return is_armed() ? tree_.child(at_, id) : -1; }
  // It has come true.
  void advance(int i);

 private:
  void lay_out_tail(int i);

  TokenTree planned_;
  TokenTree tree_;
  int n_live_ = 0;  // nodes that may still come true, or 0
  int at_ = -1;     // the last one that did; -1: the sequence's own row
  int slot_ = 0;
  std::array<std::array<int32_t, kMostTail>, TokenTree::kMaxNodes> tails_{};
  std::array<uint8_t, TokenTree::kMaxNodes> n_tail_{};  // 0: it stands behind all it sees
};

}  // namespace edge
