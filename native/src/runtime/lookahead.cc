#include "runtime/lookahead.h"

#include <algorithm>

namespace edge {
namespace {

// The likeliest child of `parent` among the first n nodes, or -1.
int best_child(const TokenTree& tree, int n, int parent) {
  int best = -1;
  for (int i = parent + 1; i < n; ++i) {
    if (tree[i].parent != parent) continue;
    if (best < 0 || tree[i].probability > tree[best].probability) best = i;
  }
  return best;
}

}  // namespace

void Lookahead::plan(const TokenTree& tree, bool only_path) {
  clear();
  planned_ = tree;
  if (!only_path) return;
  planned_.clear();
  for (int i = best_child(tree, tree.size(), -1); i >= 0; i = best_child(tree, tree.size(), i)) {
    DraftNode node = tree[i];
    node.parent = planned_.size() - 1;
    planned_.add(node);
  }
}

void Lookahead::begin(int slot, int n_nodes) {
  n_live_ = 0;
  at_ = -1;
  slot_ = slot;
  tree_.clear();
  std::array<int, TokenTree::kMaxNodes> moved_to;
  moved_to.fill(-1);
  const auto take = [&](int i) {
    DraftNode node = planned_[i];
    if (node.parent >= 0) node.parent = moved_to[static_cast<size_t>(node.parent)];
    moved_to[static_cast<size_t>(i)] = tree_.add(node);
  };
  for (int i = best_child(planned_, n_nodes, -1); i >= 0; i = best_child(planned_, n_nodes, i)) {
    take(i);
  }
  for (int i = 0; i < n_nodes; ++i) {
    if (moved_to[static_cast<size_t>(i)] < 0) take(i);
  }
  for (int i = 0; i < tree_.size(); ++i) lay_out_tail(i);
}

void Lookahead::lay_out_tail(int i) {
  const int n_above = tree_.depth(i);
  auto& tail = tails_[static_cast<size_t>(i)];
  // All it sees behind the sequence's own row, which is tail[0].
  for (int at = i, place = n_above; at >= 0; at = tree_[at].parent, --place) {
    tail[static_cast<size_t>(place)] = slot(at);
  }
  tail[0] = slot_;
  int n_in_place = 1;
  while (n_in_place <= n_above && tail[static_cast<size_t>(n_in_place)] == slot_ + n_in_place) {
    ++n_in_place;
  }
  const bool is_in_place = n_in_place > n_above;
  n_tail_[static_cast<size_t>(i)] =
      static_cast<uint8_t>(is_in_place ? 0 : 2 + n_above - n_in_place);
  std::copy(tail.begin() + n_in_place - 1, tail.begin() + n_above + 1, tail.begin());
}

std::span<const int32_t> Lookahead::tail(int i) const {
  const auto at = static_cast<size_t>(i);
  return std::span(tails_[at]).first(n_tail_[at]);
}

void Lookahead::advance(int i) {
  at_ = i;
  const auto is_child = [i](const DraftNode& node) { return node.parent == i; };
  if (std::none_of(tree_.begin(), tree_.end(), is_child)) n_live_ = 0;
}

}  // namespace edge
