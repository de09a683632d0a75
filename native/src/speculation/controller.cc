#include "speculation/controller.h"

#include <algorithm>

#include "speculation/token_tree.h"

namespace edge {

namespace {

constexpr double kPaceRate = 1.0 / 64;
// Times what was expected: a step that took longer says more of the machine than of its drafts.
constexpr double kMostOutlying = 1.25;

}  // namespace

int Controller::choose(const Question& question) {
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
    if (costs_.ms(n_rows) - plain_ms > question.most_lost * plain_ms) break;
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

double Controller::tokens_a_row(int n_other_rows) const {
  constexpr int kRows = 8;  // a usual tree
  const int n_plain = n_other_rows + 1;
  const double ms = costs_.ms(n_plain + kRows) - costs_.ms(n_plain);
  return tokens_a_ms(n_other_rows) * ms / kRows;
}

double Controller::least_probability(int n_other_rows) const {
  const int n_plain = n_other_rows + 1;
  const double plain_ms = costs_.ms(n_plain);
  const double each_ms = tokens_a_ms(n_other_rows);
  double least = 1.0;
  for (int n = 1; n <= TokenTree::kMaxNodes; ++n) {
    const double price = each_ms * (costs_.ms(n_plain + n) - plain_ms);
    least = std::min(least, (kLeastGain * n_plain + price) / n);
  }
  return least;
}

double Controller::pace() const { return std::max(1.0, pace_tokens_ / pace_steps_); }

double Controller::record(const Step& step) {
  const int n_plain = step.n_other_rows + 1;
  const int n_rows = n_plain + step.n_drafted;
  const bool is_expected = costs_.is_measured(n_plain);
  const double most_ms = is_expected ? kMostOutlying * costs_.ms(n_rows) : step.ms;
  const double step_ms = std::min(step.ms, most_ms);
  costs_.record(n_rows, step.ms);
  const double plain_ms = costs_.ms(n_plain);
  const int n_tokens = step.n_other_rows + step.n_committed;
  pace_tokens_ += (n_tokens / static_cast<double>(n_plain) - pace_tokens_) * kPaceRate;
  pace_steps_ += ((step_ms + step.draft_ms) / plain_ms - pace_steps_) * kPaceRate;
  double saved_ms = -step.draft_ms;
  if (step.n_drafted > 0) {
    ++n_since_plain_;
    saved_ms += n_tokens * plain_ms / n_plain - step_ms;
  } else {
    n_since_plain_ = 0;
  }
  saved_ms_ += saved_ms;
  return plain_ms > 0.0 ? saved_ms / plain_ms : 0.0;
}

}  // namespace edge
