#include "speculation/tree_choice.h"

#include <algorithm>

namespace edge {

namespace {

// Claims of different drafters about the children of a node may add up to more than there is.
constexpr float kMostOfSiblings = 0.98F;

using Probabilities = std::array<float, static_cast<size_t>(Candidates::kMaxNodes)>;

Probabilities path_probabilities(const Candidates& candidates) {
  std::array<float, static_cast<size_t>(Candidates::kMaxNodes) + 1> children_sum{};
  for (const DraftNode& node : candidates) {
    children_sum[static_cast<size_t>(node.parent + 1)] += node.probability;
  }
  Probabilities path{};
  for (int i = 0; i < candidates.size(); ++i) {
    const DraftNode& node = candidates[i];
    const float sum = children_sum[static_cast<size_t>(node.parent + 1)];
    const float above = node.parent < 0 ? 1.0F : path[static_cast<size_t>(node.parent)];
    const float scale = sum > kMostOfSiblings ? kMostOfSiblings / sum : 1.0F;
    path[static_cast<size_t>(i)] = above * std::min(node.probability * scale, kMostOfSiblings);
  }
  return path;
}

}  // namespace

RankedCandidates::RankedCandidates(const Candidates& candidates) : candidates_(&candidates) {
  const Probabilities path = path_probabilities(candidates);
  std::array<int, static_cast<size_t>(Candidates::kMaxNodes)> order{};
  for (int i = 0; i < candidates.size(); ++i) order[static_cast<size_t>(i)] = i;
  n_ = std::min(candidates.size(), TokenTree::kMaxNodes);
  // Of equal paths the earlier node first: a parent comes before its children.
  std::partial_sort(order.begin(), order.begin() + n_, order.begin() + candidates.size(),
                    [&](int a, int b) {
                      const float pa = path[static_cast<size_t>(a)];
                      const float pb = path[static_cast<size_t>(b)];
                      return pa != pb ? pa > pb : a < b;
                    });
  for (size_t i = 0; i < static_cast<size_t>(n_); ++i) {
    nodes_[i] = order[i];
    paths_[i] = path[static_cast<size_t>(order[i])];
  }
}

TokenTree RankedCandidates::best(int n) const {
  TokenTree tree;
  std::array<int, static_cast<size_t>(Candidates::kMaxNodes)> place{};
  for (size_t i = 0; i < static_cast<size_t>(std::min(n, n_)); ++i) {
    DraftNode node = (*candidates_)[nodes_[i]];
    if (node.parent >= 0) node.parent = place[static_cast<size_t>(node.parent)];
    node.probability = paths_[i];
    place[static_cast<size_t>(nodes_[i])] = tree.add(node);
  }
  return tree;
}

}  // namespace edge
