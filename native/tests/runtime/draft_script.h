// A source of drafts for tests: it knows the text to come, which it mixes with tokens that are
// wrong, into trees of any shape.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "doctest/doctest.h"
#include "hash_model.h"
#include "runtime/draft_source.h"

namespace edge::test {

inline int32_t best_of(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// What the sources of one script saw.
struct DraftLog {
  std::mt19937 random{1};
  int n_most_nodes = 15;
  int n_observed_rows = 0;
  bool wants_hidden = false;
  std::function<std::vector<float>(std::span<const int32_t>)> hidden_after;  // these tokens
  int n_hidden = 0;             // tokens that came with the hidden state before them, and
  int n_wrong_hidden = 0;       // with another one
  int n_wrong_tops = 0;         // rows whose best next id is not what the model says
  std::function<bool()> rests;  // at the beginning of a step; empty: never
  int n_rests = 0;
  int n_cut = 0;          // steps with fewer nodes than were proposed
  int n_step_tokens = 0;  // that came of steps
  std::function<void(const ComingDraws*, size_t n_tokens)> sees_draws;  // at each proposal
  int n_steps = 0;
  std::vector<std::vector<int32_t>> texts;  // of sequences that are over
};

class DraftScript final : public DraftSource {
 public:
  using Oracle = std::function<int32_t(std::span<const int32_t>)>;  // the token after these

  DraftScript(std::shared_ptr<DraftLog> log, Oracle oracle)
      : log_(std::move(log)), oracle_(std::move(oracle)) {}

  bool begin_step(const Step& before, std::span<const int32_t> tokens, size_t n_new) override {
    CHECK(tokens.size() - n_new <= n_heard_);  // less: some were taken back
    n_heard_ = tokens.size();
    count(before);
    is_awake_ = !log_->rests || !log_->rests();
    if (!is_awake_) ++log_->n_rests;
    return is_awake_;
  }
  // The true continuation down to some depth, and wrong tokens below any of it, shuffled as far as
  // parents stand before their children.
  const TokenTree& propose(std::span<const int32_t> tokens, int most_nodes, int,
                           const ComingDraws* draws) override {
    if (log_->sees_draws) log_->sees_draws(draws, tokens.size());
    CHECK(std::ranges::equal(tokens, known_));
    tree_.clear();
    std::mt19937& random = log_->random;
    std::vector<int32_t> text(tokens.begin(), tokens.end());
    int true_node = -1;
    const int n_nodes = std::min(most_nodes, static_cast<int>(random() % 16));
    while (tree_.size() < std::min(n_nodes, log_->n_most_nodes)) {
      DraftNode node{.probability = static_cast<float>(random() % 100) / 100,
                     .drafter = static_cast<DrafterKind>(random() % kDrafterKinds)};
      const bool is_true = random() % 2 == 0;
      const int32_t next = oracle_(text);
      node.parent = is_true ? true_node : static_cast<int>(random() % 17) % (tree_.size() + 1) - 1;
      node.id = is_true ? next : static_cast<int32_t>(random() % kVocab);
      if (tree_.child(node.parent, node.id) >= 0) break;
      const int added = tree_.add(node);
      if (node.parent != true_node || node.id != next) continue;
      true_node = added;
      text.push_back(next);
    }
    return tree_;
  }
  void observe(const DraftObservation& seen) override {
    REQUIRE(known_.size() + seen.n_new == seen.tokens.size());
    known_.assign(seen.tokens.begin(), seen.tokens.end());
    log_->n_observed_rows += static_cast<int>(seen.rows.size());
    check_hidden(seen);
    if (seen.rows.empty()) return;
    // The first row is that of a token before the new ones, but where a prompt that others have
    // mostly computed ends: there it is that of the last one.
    const auto n_before = seen.tokens.size() - seen.n_new;
    const bool is_before = n_before > 0 && seen.rows[0].token == seen.tokens[n_before - 1];
    if (seen.n_new == 1 && is_before &&
        oracle_(seen.tokens.first(n_before)) != seen.rows[0].next[0]) {
      ++log_->n_wrong_tops;
    }
  }
  void cut(int n) override {
    CHECK(n < tree_.size());
    ++log_->n_cut;
  }
  bool is_awake() const override { return is_awake_; }
  void rewind(std::span<const int32_t> tokens) override {
    known_.assign(tokens.begin(), tokens.end());
  }
  void end(const Step& last, std::span<const int32_t> tokens) override {
    count(last);
    log_->texts.emplace_back(tokens.begin(), tokens.end());
  }
  bool wants_hidden() const override { return log_->wants_hidden; }
  uint64_t most_bytes() const override { return 100; }
  double saved_ms() const override { return 0; }
  int64_t n_capped() const override { return 0; }
  std::unique_ptr<DraftSource> fresh() const override {
    return std::make_unique<DraftScript>(log_, oracle_);
  }

 private:
  void count(const Step& step) {
    if (step.n_tokens > 0) ++log_->n_steps;
    log_->n_step_tokens += step.n_tokens;
  }
  void check_hidden(const DraftObservation& seen) {
    if (seen.hidden.empty()) return;
    REQUIRE(seen.hidden.size() == seen.n_new * kHidden);
    for (size_t i = 0; i < seen.n_new; ++i) {
      const auto before = seen.tokens.first(seen.tokens.size() - seen.n_new + i);
      const auto row = seen.hidden.subspan(i * kHidden, kHidden);
      const std::vector<float> expected =
          before.empty() ? std::vector<float>(kHidden) : log_->hidden_after(before);
      ++log_->n_hidden;
      if (!std::equal(row.begin(), row.end(), expected.begin())) ++log_->n_wrong_hidden;
    }
  }

  std::shared_ptr<DraftLog> log_;
  Oracle oracle_;
  TokenTree tree_;
  std::vector<int32_t> known_;
  size_t n_heard_ = 0;
  bool is_awake_ = true;
};

}  // namespace edge::test
