#include "speculation/tree_choice.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "doctest/doctest.h"
#include "draw.h"

namespace edge {
namespace {

using test::Draw;

Candidates random_candidates(Draw& draw, int n) {
  Candidates candidates;
  while (candidates.size() < n) {
    candidates.add({draw.below(4), draw.below(candidates.size() + 1) - 1,
                    static_cast<float>(draw.unit()), DrafterKind::kSuffix, 0});
  }
  return candidates;
}

// Siblings share what there is, 0.98 of it; a path is as likely as all on it are.
double path_probability(const Candidates& candidates, int node) {
  if (node < 0) return 1.0;
  double of_siblings = 0.0;
  for (const DraftNode& other : candidates) {
    if (other.parent == candidates[node].parent) of_siblings += double{other.probability};
  }
  const double scale = of_siblings > 0.98 ? 0.98 / of_siblings : 1.0;
  return path_probability(candidates, candidates[node].parent) *
         std::min(double{candidates[node].probability} * scale, 0.98);
}

// The most tokens that any tree of n nodes expects, by trying all subsets.
double most_expected(const Candidates& candidates, int n) {
  double most = 0.0;
  for (uint32_t subset = 0; subset < (1U << candidates.size()); ++subset) {
    if (std::popcount(subset) != n) continue;
    double expected = 0.0;
    bool is_tree = true;
    for (int i = 0; i < candidates.size() && is_tree; ++i) {
      if ((subset >> i & 1) == 0) continue;
      const int parent = candidates[i].parent;
      is_tree = parent < 0 || (subset >> parent & 1) != 0;
      expected += path_probability(candidates, i);
    }
    if (is_tree) most = std::max(most, expected);
  }
  return most;
}

TEST_CASE("the likeliest paths are a tree, and none of that size expects more tokens") {
  Draw draw(1);
  for (int round = 0; round < 60; ++round) {
    const Candidates candidates = random_candidates(draw, 1 + draw.below(10));
    const RankedCandidates ranked(candidates);
    double expected = 0.0;
    for (int n = 1; n <= candidates.size(); ++n) {
      expected += double{ranked.probabilities()[static_cast<size_t>(n - 1)]};
      CHECK(expected == doctest::Approx(most_expected(candidates, n)).epsilon(1e-5));
    }
  }
}

TEST_CASE("a chosen tree has its parents first and each beginning is the tree of that size") {
  Draw draw(2);
  for (int round = 0; round < 50; ++round) {
    const Candidates candidates = random_candidates(draw, 40);
    const RankedCandidates ranked(candidates);
    const TokenTree largest = ranked.best(TokenTree::kMaxNodes);
    REQUIRE(largest.size() == TokenTree::kMaxNodes);
    for (int n = 0; n <= largest.size(); ++n) {
      TokenTree tree = ranked.best(n);
      REQUIRE(tree.size() == n);
      for (int i = 0; i < n; ++i) {
        CHECK(tree[i].parent < i);
        CHECK(tree[i].parent == largest[i].parent);
        CHECK(tree[i].id == largest[i].id);
        if (i > 0) CHECK(tree[i].probability <= tree[i - 1].probability);
        CHECK(tree.child(tree[i].parent, tree[i].id) == i);
      }
    }
  }
}

TEST_CASE("drafters that agree have one node, and the higher claim") {
  Candidates candidates;
  const int a = candidates.add({5, -1, 0.25F, DrafterKind::kSuffix, 3});
  CHECK(candidates.add({5, -1, 0.5F, DrafterKind::kRecycling, 4}) == a);
  CHECK(candidates.add({5, a, 0.5F, DrafterKind::kSuffix, 3}) == 1);
  CHECK(candidates.add({5, -1, 0.125F, DrafterKind::kHead, 9}) == a);
  CHECK(candidates.size() == 2);
  CHECK(candidates[a].drafter == DrafterKind::kRecycling);
  CHECK(candidates[a].probability == 0.5F);
  CHECK(candidates.depth(1) == 2);
  CHECK(candidates.depth(-1) == 0);
  CHECK(candidates.is_chain());
  CHECK(candidates.add({6, -1, 0.125F, DrafterKind::kHead, 9}) == 2);
  CHECK_FALSE(candidates.is_chain());
}

TEST_CASE("a tree refuses what it has no room or no parent for") {
  TokenTree tree;
  CHECK(tree.add({1, 0, 0.5F}) == -1);
  CHECK(tree.add({1, -2, 0.5F}) == -1);
  for (int i = 0; i < TokenTree::kMaxNodes; ++i) CHECK(tree.add({i, -1, 0.5F}) == i);
  CHECK(tree.add({99, -1, 0.5F}) == -1);
  CHECK(tree.add({3, -1, 0.75F}) == 3);
  tree.cut(4);
  CHECK(tree.size() == 4);
  tree.cut(-1);
  CHECK(tree.empty());
}

}  // namespace
}  // namespace edge
