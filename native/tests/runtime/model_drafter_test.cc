#include "runtime/model_drafter.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "hash_model.h"

namespace {

using edge::Acceptance;
using edge::Candidates;
using edge::DrafterKind;
using edge::DraftRows;
using edge::KvCache;
using edge::ModelDrafter;
using edge::SharedAcceptance;
using edge::test::HashModel;
using edge::test::kVocab;

constexpr int kContext = 96;

int32_t likeliest(const std::vector<float>& logits, int n_ids) {
  const auto end = logits.begin() + n_ids;
  return static_cast<int32_t>(std::max_element(logits.begin(), end) - logits.begin());
}

struct Sequence {
  explicit Sequence(std::vector<int> windows = {0}, int n_common = kVocab)
      : model(std::move(windows)), n_ids(n_common) {}

  HashModel model;
  int n_ids;
  SharedAcceptance shared;
  Acceptance acceptance{shared};
  KvCache cache{model.groups(), uint64_t{1} << 24};
  ModelDrafter drafter{DrafterKind::kExternal,
                       DraftRows::create(model, cache, kContext, DraftRows::Of::kModel).take(),
                       n_ids, acceptance, 0};
  std::vector<int32_t> tokens;
  size_t first = 0;  // token that the model's text begins with

  void observe(std::span<const int32_t> ids) {
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    drafter.observe({.tokens = tokens, .n_new = ids.size()});
  }
  void rewind(size_t n) {
    tokens.resize(n);
    drafter.rewind(tokens);
  }
  Candidates propose(double tokens_a_ms = 0.0, double tokens_a_row = 0.0) {
    Candidates out;
    drafter.propose({.tokens = tokens, .tokens_a_ms = tokens_a_ms, .tokens_a_row = tokens_a_row},
                    out);
    return out;
  }
  // The model's own likeliest continuation stands in its proposal, as far as that goes.
  void check(const Candidates& out) const {
    std::vector<int32_t> text(tokens.begin() + static_cast<ptrdiff_t>(first), tokens.end());
    REQUIRE(!out.empty());
    int at = -1;
    int depth = 0;
    for (;; ++depth) {
      const int32_t next = likeliest(model.expected(text), n_ids);
      const int child = out.child(at, next);
      const bool is_leaf =
          std::none_of(out.begin(), out.end(), [&](const auto& node) { return node.parent == at; });
      if (is_leaf) break;
      REQUIRE(child >= 0);
      CHECK(out[child].drafter == DrafterKind::kExternal);
      CHECK(out[child].id < n_ids);
      text.push_back(next);
      at = child;
    }
    CHECK(depth == ModelDrafter::kMostPasses);
  }
};

TEST_CASE("a model drafts what it would write, whatever was drafted, kept and taken back before") {
  for (const std::vector<int>& windows : {std::vector<int>{0}, {0, 20}}) {
    Sequence sequence(windows);
    const auto ids = edge::test::random_ids(60, 3);
    const std::span<const int32_t> all(ids);
    sequence.observe(all.first(10));
    sequence.check(sequence.propose());
    sequence.observe(all.subspan(10, 1));
    sequence.check(sequence.propose());
    sequence.check(sequence.propose());  // once more for the same tokens
    sequence.observe(all.subspan(11, 20));
    sequence.rewind(25);
    sequence.check(sequence.propose());  // of which it has read only a part
    sequence.rewind(4);
    sequence.check(sequence.propose());
    sequence.observe(all.subspan(4, 9));
    sequence.check(sequence.propose());
    sequence.rewind(0);
    sequence.observe(all.first(3));
    sequence.check(sequence.propose());
  }
}

TEST_CASE("a model with no more room goes on with the later half of the text") {
  Sequence sequence({0, 20});
  const auto ids = edge::test::random_ids(400, 5);
  const std::span<const int32_t> all(ids);
  size_t n_begun_anew = 0;
  for (size_t n = 0; n + 5 <= all.size() && n_begun_anew < 4; n += 5) {
    sequence.observe(all.subspan(n, 5));
    const size_t n_tokens = sequence.tokens.size();
    if (n_tokens - sequence.first + ModelDrafter::kMostPasses > kContext) {
      sequence.first = n_tokens - kContext / 2;
      ++n_begun_anew;
    }
    sequence.check(sequence.propose());
  }
  CHECK(n_begun_anew == 4);
  const size_t n_tokens = sequence.tokens.size();
  sequence.rewind(sequence.first);  // to before what it has read
  sequence.first = n_tokens > 0 ? sequence.tokens.size() - kContext / 2 : 0;
  sequence.check(sequence.propose());
  Sequence longer;
  longer.observe(all);
  longer.first = all.size() - kContext / 2;
  longer.check(longer.propose());
}

TEST_CASE("ids that only the other model has are read over, and never drafted") {
  constexpr int kCommon = 7;
  Sequence sequence({0}, kCommon);
  sequence.observe(std::vector<int32_t>{1, 2, 3, 4});
  sequence.check(sequence.propose());
  sequence.observe(std::vector<int32_t>{kCommon + 1});
  CHECK(sequence.propose().empty());
  sequence.observe(std::vector<int32_t>{5, 6});
  sequence.first = 5;
  sequence.check(sequence.propose());
  sequence.observe(std::vector<int32_t>{kVocab + 1000, 2, kCommon, 1});
  sequence.first = 10;
  sequence.check(sequence.propose());
}

TEST_CASE("where time brings more elsewhere than a pass can, there is none") {
  Sequence sequence;
  sequence.observe(edge::test::random_ids(20, 8));
  CHECK(sequence.propose().size() >= ModelDrafter::kMostPasses);
  const size_t n_steps = sequence.model.step_rows.size();
  Candidates out = sequence.propose(1e12);
  CHECK(sequence.model.step_rows.size() == n_steps);
  for (const auto& node : out) CHECK(node.parent == -1);
  CHECK(!out.empty());
}

TEST_CASE("a pass whose best guess would not pay for its own row is not made") {
  Sequence sequence;
  sequence.observe(edge::test::random_ids(20, 8));
  const auto has_child = [&](double tokens_a_row) {
    const Candidates out = sequence.propose(0, tokens_a_row);
    return std::any_of(out.begin(), out.end(), [](const auto& node) { return node.parent >= 0; });
  };
  CHECK(has_child(0));
  CHECK(has_child(0.01));
  CHECK_FALSE(has_child(1.5));  // it brings one token at most
  CHECK(has_child(0));
}

TEST_CASE("a model that fails is silent from then on") {
  Sequence sequence;
  sequence.observe(edge::test::random_ids(5, 1));
  sequence.model.n_steps_until_failure = 0;
  CHECK(sequence.propose().empty());
  sequence.observe(edge::test::random_ids(1, 1));
  CHECK(sequence.propose().empty());
}

}  // namespace
