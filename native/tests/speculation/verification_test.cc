// Verification of drawn drafts: the text has the distribution of the model.
#include "speculation/verification.h"

#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "doctest/doctest.h"

namespace edge {
namespace {

constexpr int kVocab = 4;
constexpr int kTexts = kVocab * kVocab * kVocab;  // of three tokens
constexpr int kDraws = 200'000;

using Text = std::vector<int32_t>;
using Law = std::vector<double>;

// Any law that depends on the text before, some tokens of which are rare or cannot come.
Law law_after(const Text& text, uint32_t salt) {
  uint32_t hash = 2166136261u ^ salt;
  for (const int32_t id : text) hash = (hash ^ static_cast<uint32_t>(id + 1)) * 16777619u;
  std::mt19937 random(hash);
  Law law(kVocab);
  double sum = 0;
  for (double& x : law) sum += x = std::pow(static_cast<double>(random() % 1000) / 1000, 3);
  for (double& x : law) x /= sum;
  return law;
}
Law eager_law_after(const Text& text) {
  Law law = law_after(text, 2);
  for (double& x : law) x = 0.9 * x + 0.1 / kVocab;
  return law;
}

struct Laws {
  Law target, draft;
};
// Of texts of up to three tokens, made once.
const Laws& laws_after(const Text& text) {
  static std::array<Laws, 5 * 5 * 5> known;
  size_t at = 0;
  for (const int32_t id : text) at = 5 * at + static_cast<size_t>(id) + 1;
  Laws& laws = known[at];
  if (laws.target.empty()) laws = {law_after(text, 1), eager_law_after(text)};
  return laws;
}
double probability_of(const Text& text) {
  Text before = text;
  before.pop_back();
  return laws_after(before).target[static_cast<size_t>(text.back())];
}

struct Draws {
  std::mt19937_64 random{11};
  double operator()() { return static_cast<double>(random() >> 11) * 0x1p-53; }
};

int32_t draw_from(const Law& law, double u) {
  double sum = 0;
  for (const double x : law) sum += x;
  u *= sum;
  for (size_t i = 0; i + 1 < law.size(); ++i) {
    if (u < law[i]) return static_cast<int32_t>(i);
    u -= law[i];
  }
  return static_cast<int32_t>(law.size() - 1);
}

Text text_of(const TokenTree& tree, int node) {
  Text text;
  for (; node >= 0; node = tree[node].parent) text.insert(text.begin(), tree[node].id);
  return text;
}

// n_children[d] of every node at depth d, drawn one after the other.
DrawnTree drawn_tree(const std::vector<int>& n_children, Draws& draws) {
  DrawnTree drawn;
  for (int node = -1; node < drawn.tree.size(); ++node) {
    const Text text = text_of(drawn.tree, node);
    drawn.target.push_back(laws_after(text).target);
    drawn.draft.push_back(laws_after(text).draft);
    if (text.size() >= n_children.size()) continue;
    Law left = drawn.draft.back();
    for (int i = 0; i < n_children[text.size()]; ++i) {
      const int32_t id = draw_from(left, draws());
      left[static_cast<size_t>(id)] = 0;
      REQUIRE(drawn.tree.add({.id = id, .parent = node}) >= 0);
    }
  }
  return drawn;
}

struct Outcome {
  double chi_square = 0;  // of texts of three tokens
  double n_accepted = 0;  // a tree
};

template <class Verify>
Outcome outcome_of(const std::vector<int>& n_children, const Verify& verify) {
  Draws draws;
  std::array<int, kTexts> counts{};
  int64_t n_accepted = 0;
  for (int i = 0; i < kDraws; ++i) {
    const DrawnTree drawn = drawn_tree(n_children, draws);
    const Verdict verdict = verify(drawn, [&] { return draws(); });
    Text text = text_of(drawn.tree, verdict.node);
    n_accepted += static_cast<int64_t>(text.size());
    text.push_back(verdict.next);
    while (text.size() < 3) text.push_back(draw_from(laws_after(text).target, draws()));
    ++counts[static_cast<size_t>((text[0] * kVocab + text[1]) * kVocab + text[2])];
  }
  Outcome outcome{.n_accepted = static_cast<double>(n_accepted) / kDraws};
  double rare_expected = 0, rare_found = 0;  // pooled: too few of each
  const auto add = [&](double expected, double found) {
    outcome.chi_square += (found - expected) * (found - expected) / expected;
  };
  for (int i = 0; i < kTexts; ++i) {
    const int32_t a = i / kVocab / kVocab, b = i / kVocab % kVocab, c = i % kVocab;
    const double expected =
        probability_of({a}) * probability_of({a, b}) * probability_of({a, b, c}) * kDraws;
    const double found = counts[static_cast<size_t>(i)];
    if (expected >= 10) {
      add(expected, found);
    } else {
      rare_expected += expected;
      rare_found += found;
    }
  }
  if (rare_expected > 0) add(rare_expected, rare_found);
  return outcome;
}

// Exceeded by one of 10,000 right ones with 63 degrees of freedom; fewer make it less.
constexpr double kMostChiSquare = 114;

}  // namespace

TEST_CASE("drafts that were drawn leave the distribution of the text as it is") {
  for (const std::vector<int>& n_children : {std::vector<int>{3}, {1, 1}, {2, 2}, {2, 1, 1}}) {
    const Outcome rejection = outcome_of(n_children, verify_rejection);
    const Outcome traversal = outcome_of(n_children, verify_traversal);
    CHECK(rejection.chi_square < kMostChiSquare);
    CHECK(traversal.chi_square < kMostChiSquare);
    CHECK(rejection.n_accepted > 0);
    CHECK(traversal.n_accepted > rejection.n_accepted - 0.005);
    if (n_children.size() > 1) CHECK(traversal.n_accepted > rejection.n_accepted);
  }
}

TEST_CASE("the test notices a draft that stands too often") {
  const Outcome wrong = outcome_of({1, 1}, [](const DrawnTree& drawn, const UniformDraws& draw) {
    DrawnTree eager = drawn;
    for (Law& law : eager.draft) {
      for (double& x : law) x *= 0.95;
    }
    return verify_rejection(eager, draw);
  });
  CHECK(wrong.chi_square > kMostChiSquare);
}

}  // namespace edge
