// Controller: how many drafted tokens a step should verify so that most tokens come in a second,
// and what drafting has saved. Deterministic: times are told to it.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include "speculation/cost_table.h"

namespace edge {

class Controller {
 public:
  static constexpr int kPlainEvery = 32;         // steps: what a plain one takes stays known
  static constexpr double kLeastGain = 0.03;     // tokens that drafting must bring a step
  static constexpr double kLeastNewGain = 0.10;  // by a size of step that was not timed

  explicit Controller(CostTable costs = CostTable()) : costs_(std::move(costs)) {}

  struct Question {
    std::span<const float>
        gains;               // expected tokens that the 1st, 2nd.. drafted row adds; descending
    int n_other_rows = 0;    // of other sequences in the step
    double draft_ms = 0.0;   // that proposing took or takes
    double budget_ms = 0.0;  // that 95 of 100 steps must stay below; 0: none
    double most_lost = std::numeric_limits<double>::infinity();  // plain steps, if all is wrong
  };
  // Drafted rows for a step, in [0, gains.size()].
  int choose(const Question& question);

  // What a millisecond of such a step brings at the pace of late.
  double tokens_a_ms(int n_other_rows) const;
  // And what the time of one row more does.
  double tokens_a_row(int n_other_rows) const;
  // A first draft less likely than this, and all others less likely still, are not worth a step.
  double least_probability(int n_other_rows) const;
  // Tokens that the best choice brings beyond a plain step's, less what its time is worth.
  double best_gain(const Question& question) const { return most_profitable(question).gain; }

  struct Step {
    int n_other_rows = 0;
    int n_drafted = 0;      // drafted rows; 0: a plain step
    int n_committed = 1;    // tokens of this sequence that came of it
    double ms = 0.0;        // of the step
    double draft_ms = 0.0;  // of proposing and learning, beside it
  };
  // Returns the time that drafting has won by it, in plain steps of that many other rows.
  double record(const Step& step);
  // A step without any thought of drafts was made.
  void record_plain(int n_other_rows, double ms) {
    costs_.record(n_other_rows + 1, ms);
    n_since_plain_ = 0;
  }

  // Steps whose drafts were fewer for the sake of budget_ms.
  int64_t n_capped() const { return n_capped_; }
  // What all steps with drafts took less than plain ones would have; negative: more.
  double saved_ms() const { return saved_ms_; }
  const CostTable& costs() const { return costs_; }

 private:
  struct Choice {
    int n_rows = 0;
    double gain = 0.0;  // tokens
  };
  // Of the rows that the budget and most_lost allow.
  Choice most_profitable(const Question& question) const;
  int rows_within_budget(const Question& question) const;
  // Tokens in the time of a plain step, lately; at least 1.
  double pace() const;

  CostTable costs_;
  int n_since_plain_ = kPlainEvery;  // steps; the first is plain
  double pace_tokens_ = 1.0;
  double pace_steps_ = 1.0;
  double saved_ms_ = 0.0;
  int64_t n_capped_ = 0;
};

}  // namespace edge
