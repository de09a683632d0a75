#include "speculation/speculation.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/exact_math.h"
#include "base/race.h"
#include "speculation/chosen_drafters.h"

namespace edge {

namespace {

// A text that comes to nothing drafts nothing: less is not worth having.
constexpr size_t kLeastTextBytes = size_t{64} << 10;
// Tokens; more at once are a prompt's, or came at rest.
constexpr size_t kLongestStep = size_t{TokenTree::kMaxNodes} + 1;
// Of these, the last ones are judged: what a sequence has shown fades faster than that.
constexpr size_t kMostJudged = 1024;

// Where a step takes less than this, to propose and to learn is a share of it that counts.
constexpr double kLeastStepMs = 0.5;

// Who set it to something else has been told.
uint32_t chosen() {
  static const Result<uint32_t> known = chosen_drafters();
  return known.is_ok() ? known.value() : ~uint32_t{0};
}

}  // namespace

bool DraftGate::is_open() {
  if (worth_ < 0.0 && ++waited_ < wait_) return false;
  waited_ = 0;
  return true;
}

void DraftGate::learn(double gain) {
  static constexpr double kRate = 1.0 / 16;
  worth_ += (gain - worth_) * kRate;
  wait_ = worth_ < 0.0 ? std::min(2 * wait_, kLongestWait) : kShortestWait;
}

size_t SharedSpeculation::memory_for(size_t model_bytes) {
  return std::max(size_t{16} << 20, model_bytes / 100 * 3);
}

SharedSpeculation::SharedSpeculation(const SpeculationOptions& options, CostTable costs)
    : sequence_bytes_(std::max(
          options.memory_bytes / 2 / static_cast<size_t>(std::max(options.max_sequences, 1)),
          kLeastTextBytes)),
      store_(options.memory_bytes / 4 - std::min(options.memory_bytes / 4, Echoes::kMemoryBytes)),
      recycling_(options.memory_bytes / 4, options.n_vocab),
      controller_(std::move(costs)) {}

void SharedSpeculation::keep_text(std::span<const int32_t> tokens) {
  if (patience_.has_given_up()) return store_.add_later(tokens);
  store_.add_waiting();
  store_.add(tokens);
}

SequenceSpeculation::SequenceSpeculation(SharedSpeculation& shared)
    : shared_(shared),
      acceptance_(shared.acceptance_),
      cheap_{std::make_unique<OwnTextDrafter>(shared.sequence_bytes_, acceptance_),
             std::make_unique<StoreDrafter>(shared.store_, acceptance_),
             std::make_unique<RecyclingDrafter>(shared.recycling_, acceptance_)},
      patience_(shared.patience_) {
  begin_text();
}

void SequenceSpeculation::begin_text() {
  patience_ = shared_.patience_;
  patience_.begin_text();
  const CostTable& costs = shared_.controller_.costs();
  if (costs.is_measured(1) && costs.ms(1) < kLeastStepMs) patience_.await_echo();
}

bool SequenceSpeculation::rests(std::span<const int32_t> tokens, size_t n_new) {
  n_echoed_ = shared_.echoes_.hear(tokens, n_new, n_echoed_);
  if (n_new > kLongestStep) n_echoed_ = 0;  // a prompt that repeats says nothing of the answer
  if (!patience_.is_resting()) return false;
  const bool rests = patience_.rest_on(n_echoed_);
  if (rests) right_candidate_ = right_node_ = kLost;
  if (patience_.is_woken()) shared_.store_.add_waiting();
  shared_.patience_ = patience_;
  return rests;
}

const TokenTree& SequenceSpeculation::propose(std::span<const int32_t> tokens,
                                              const Limits& limits) {
  candidates_.clear();
  tree_.clear();
  right_candidate_ = right_node_ = -1;
  n_other_rows_ = limits.n_other_rows;
  const int max_nodes = std::clamp(limits.max_nodes, 0, TokenTree::kMaxNodes);
  if (max_nodes == 0 || tokens.empty()) return tree_;

  DraftContext context{.tokens = tokens, .max_depth = max_nodes, .draws = limits.draws};
  if (!limits.is_time_free) {
    context.tokens_a_ms = shared_.controller_.tokens_a_ms(limits.n_other_rows);
    context.tokens_a_row = shared_.controller_.tokens_a_row(limits.n_other_rows);
  }
  propose_cheap({.tokens = tokens, .max_depth = 1, .draws = limits.draws});
  if (is_worth_more(limits)) {
    candidates_.clear();
    propose_cheap(context);
  } else if (added_.empty()) {
    return tree_;
  }
  const auto ranked_gains = [max_nodes](const RankedCandidates& ranked) {
    const auto all = ranked.probabilities();
    return all.first(std::min(all.size(), static_cast<size_t>(max_nodes)));
  };
  RankedCandidates ranked(candidates_);
  Controller::Question question{.gains = ranked_gains(ranked),
                                .n_other_rows = limits.n_other_rows,
                                .budget_ms = limits.budget_ms,
                                .most_lost = patience_.credit()};
  if (!added_.empty()) {
    question.draft_ms = propose_added(context, question, limits.is_time_free);
    ranked = RankedCandidates(candidates_);
    question.gains = ranked_gains(ranked);
  }
  tree_ = ranked.best(shared_.controller_.choose(question));
  for (const DraftNode& node : tree_) ++counts_[static_cast<size_t>(node.drafter)].drafted;
  return tree_;
}

void SequenceSpeculation::propose_cheap(const DraftContext& context) {
  for (const auto& drafter : cheap_) {
    if (is_chosen(chosen(), drafter->kind())) drafter->propose(context, candidates_);
  }
  if (context.draws != nullptr) heed(*context.draws);
}

// A token of probability P arrives at E / P in the race that draws (base/race.h) and the first of
// all others at an exponential time of rate 1 - P, so it wins with exp(-(1 - P) E / P). What is
// known is the mean p of such candidates: some are no token that the model thinks of now, the
// others have more. Half of p by logarithm is taken for each of the two, the best of the powers .3,
// .5, .7 and 1.
void SequenceSpeculation::heed(const ComingDraws& draws) {
  constexpr double kLeast = 1e-4;
  constexpr double kMost = 1 - 1e-6;
  for (int i = 0; i < candidates_.size(); ++i) {
    DraftNode& node = candidates_[i];
    const uint64_t step = draws.step + static_cast<uint64_t>(candidates_.depth(i)) - 1;
    const double root = std::sqrt(std::clamp(double{node.probability}, kLeast, kMost));
    const double others = (1 - root) / root * racing_number(draws.seed, step, node.id);
    node.probability = static_cast<float>(root * exp_nonpositive(-others));
  }
}

bool SequenceSpeculation::is_worth_more(const Limits& limits) const {
  float most = 0.0F;
  for (const DraftNode& node : candidates_) most = std::max(most, node.probability);
  return static_cast<double>(most) >= shared_.controller_.least_probability(limits.n_other_rows);
}

double SequenceSpeculation::propose_added(const DraftContext& context,
                                          Controller::Question question, bool is_time_free) {
  Controller& controller = shared_.controller_;
  double draft_ms = 0.0;
  for (const auto& drafter : added_) {
    DraftGate& gate = shared_.gates_[static_cast<size_t>(drafter->kind())];
    if (!is_time_free && !gate.is_open()) continue;
    const double without = controller.best_gain(question);
    drafter->propose(context, candidates_);
    if (!is_time_free) draft_ms += drafter->propose_ms();
    once_ms_ += drafter->once_ms();
    const RankedCandidates ranked(candidates_);
    const auto all = ranked.probabilities();
    question.gains = all.first(std::min(all.size(), static_cast<size_t>(context.max_depth)));
    question.draft_ms = draft_ms;
    gate.learn(controller.best_gain(question) - without);
  }
  return draft_ms;
}

void SequenceSpeculation::cut(int n) {
  for (int i = std::max(n, 0); i < tree_.size(); ++i) {
    --counts_[static_cast<size_t>(tree_[i].drafter)].drafted;
  }
  tree_.cut(n);
}

void SequenceSpeculation::judge(int32_t token) {
  if (right_candidate_ != kLost) {
    int right = kLost;
    for (int i = 0; i < candidates_.size(); ++i) {
      const DraftNode& node = candidates_[i];
      if (node.parent != right_candidate_) continue;
      acceptance_.count(node.drafter, node.bucket, node.id == token);
      if (node.id == token) right = i;
    }
    right_candidate_ = right;
  }
  if (right_node_ != kLost) {
    const int child = tree_.child(right_node_, token);
    right_node_ = child < 0 ? kLost : child;
    if (child >= 0) ++counts_[static_cast<size_t>(tree_[child].drafter)].accepted;
  }
}

void SequenceSpeculation::observe(const DraftObservation& observation) {
  if (observation.n_new > kLongestStep) return observe_prompt(observation);
  for (const int32_t token : observation.tokens.last(observation.n_new)) judge(token);
  for_each_drafter([&](Drafter& drafter) { drafter.observe(observation); });
}

void SequenceSpeculation::observe_prompt(const DraftObservation& observation) {
  right_candidate_ = right_node_ = kLost;
  const size_t n_all = observation.tokens.size();
  for (size_t n = n_all - observation.n_new; n < n_all; ++n) {
    const auto before = observation.tokens.first(n);
    const auto now = observation.tokens.first(n + 1);
    if (n > 0 && n + kMostJudged >= n_all) {
      candidates_.clear();
      right_candidate_ = -1;
      propose_cheap({.tokens = before, .max_depth = 1});
      judge(now.back());
    }
    for (const auto& drafter : cheap_) drafter->observe({.tokens = now, .n_new = 1});
  }
  right_candidate_ = kLost;
  for (const auto& drafter : cheap_) {
    drafter->observe({.tokens = observation.tokens, .rows = observation.rows});
  }
  for (const auto& drafter : added_) drafter->observe(observation);
}

void SequenceSpeculation::rewind(std::span<const int32_t> tokens) {
  right_candidate_ = right_node_ = kLost;
  for_each_drafter([&](Drafter& drafter) { drafter.rewind(tokens); });
}

void SequenceSpeculation::record_step(int n_committed, double ms, double draft_ms) {
  patience_.count(shared_.controller_.record({.n_other_rows = n_other_rows_,
                                              .n_drafted = tree_.size(),
                                              .n_committed = n_committed,
                                              .ms = ms,
                                              .draft_ms = draft_ms}));
  shared_.patience_ = patience_;
}

bool SequenceSpeculation::wants_hidden() const {
  bool is_wanted = false;
  for_each_drafter([&](const Drafter& drafter) { is_wanted |= drafter.wants_hidden(); });
  return is_wanted;
}

size_t SequenceSpeculation::memory_bytes() const {
  size_t sum = 0;
  for_each_drafter([&](const Drafter& drafter) { sum += drafter.memory_bytes(); });
  return sum;
}

}  // namespace edge
