// Which candidates a step should verify. A candidate is committed if it and all above it are right,
// so it adds the probability of its path to the expected number of tokens (OPT-Tree, Wang et al.
// 2024, arXiv 2406.17276). No path is likelier than its beginning: the n likeliest paths are a
// tree, and no tree of n nodes expects more.
#pragma once

#include <array>
#include <span>

#include "speculation/token_tree.h"

namespace edge {

class RankedCandidates {
 public:
  RankedCandidates() = default;
  explicit RankedCandidates(const Candidates& candidates);

  // Of the paths, descending; the sum of the first n is what n nodes add to a step's tokens.
  std::span<const float> probabilities() const { return {paths_.data(), static_cast<size_t>(n_)}; }
  // The n likeliest, likeliest first, with the probabilities of their paths: each beginning of the
  // tree is the best of its size.
  TokenTree best(int n) const;

 private:
  const Candidates* candidates_ = nullptr;
  int n_ = 0;  // at most a TokenTree's
  std::array<float, TokenTree::kMaxNodes> paths_{};
  std::array<int, TokenTree::kMaxNodes> nodes_{};
};

}  // namespace edge
