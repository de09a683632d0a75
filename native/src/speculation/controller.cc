#include "speculation/controller.h"

#include <algorithm>

namespace edge {

namespace {

constexpr double kPaceRate = 1.0 / 64;
// Plain steps; what was won long ago is no reason to lose now.
constexpr double kMostAhead = 4.0;

}  // namespace

int Controller::choose(const Question& question) {
  if (rest_ > 0) {
    --rest_;
    return 0;
  }
  if (!costs_.is_measured(question.n_other_rows + 1) || n_since_plain_ >= kPlainEvery) return 0;
  const int n = most_profitable(question).n_rows;
  if (question.budget_ms > 0.0) {
    Question unlimited = question;
    unlimited.budget_ms = 0.0;
    if (most_profitable(unlimited).n_rows > n) ++n_capped_;
  }
  return n;
}

int Controller::rows_within_budget(const Question& question) const {
  int n = static_cast<int>(question.gains.size());
  if (question.budget_ms <= 0.0) return n;
  const auto is_late = [&](int n_drafted) {
    const double ms = costs_.high_ms(question.n_other_rows + 1 + n_drafted);
    return ms + question.draft_ms > question.budget_ms;
  };
  while (n > 0 && is_late(n)) --n;
  return n;
}

Controller::Choice Controller::most_profitable(const Question& question) const {
  const int n_plain = question.n_other_rows + 1;
  const double plain_ms = costs_.ms(n_plain);
  const int most_rows = rows_within_budget(question);
  // Time beyond a plain step's is worth what it brings elsewhere.
  const double each_ms = tokens_a_ms(question.n_other_rows);
  const Choice none{0, -each_ms * question.draft_ms};
  Choice known = none;
  Choice unknown;
  // A new size is at most twice one that is known: what that takes says something about it.
  int largest_new = 2 * n_plain;
  double n_more = 0.0;
  for (int n = 1; n <= most_rows; ++n) {
    const int n_rows = n_plain + n;
    const bool is_measured = costs_.is_measured(n_rows);
    if (is_measured) largest_new = 2 * n_rows;
    if (!is_measured && n_rows > largest_new) break;
    n_more += static_cast<double>(question.gains[static_cast<size_t>(n - 1)]);
    const double ms = costs_.ms(n_rows) - plain_ms + question.draft_ms;
    const double gain = n_more - each_ms * ms;
    Choice& best = is_measured ? known : unknown;
    if (gain > best.gain) best = {n, gain};
  }
  if (known.gain < none.gain + kLeastGain * n_plain) known = none;
  return unknown.gain > known.gain + kLeastNewGain * n_plain ? unknown : known;
}

double Controller::tokens_a_ms(int n_other_rows) const {
  const int n_plain = n_other_rows + 1;
  return pace() * n_plain / costs_.ms(n_plain);
}

double Controller::pace() const { return std::max(1.0, pace_tokens_ / pace_steps_); }

void Controller::record(const Step& step) {
  const int n_plain = step.n_other_rows + 1;
  costs_.record(n_plain + step.n_drafted, step.ms);
  const double plain_ms = costs_.ms(n_plain);
  const int n_tokens = step.n_other_rows + step.n_committed;
  const double saved_ms = n_tokens * plain_ms / n_plain - step.ms - step.draft_ms;
  pace_tokens_ += (n_tokens / static_cast<double>(n_plain) - pace_tokens_) * kPaceRate;
  pace_steps_ += ((step.ms + step.draft_ms) / plain_ms - pace_steps_) * kPaceRate;
  if (step.n_drafted > 0) {
    ++n_since_plain_;
    account(saved_ms, plain_ms);
  } else {
    n_since_plain_ = 0;
    if (step.draft_ms > 0.0) account(-step.draft_ms, plain_ms);
  }
}

void Controller::account(double saved_ms, double plain_ms) {
  saved_ms_ += saved_ms;
  balance_ = std::min(balance_ + saved_ms / plain_ms, kMostAhead);
  if (balance_ >= kMostAhead) next_rest_ = kFirstRest;
  if (balance_ >= -kMostBehind) return;
  rest_ = std::max(next_rest_, static_cast<int>(-balance_ * kFirstRest / kMostBehind));
  balance_ = 0.0;
  next_rest_ = std::min(2 * next_rest_, kLongestRest);
}

}  // namespace edge
