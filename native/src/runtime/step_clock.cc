#include "runtime/step_clock.h"

#include <algorithm>
#include <cmath>

namespace edge {
namespace {

constexpr double kNewShare = 0.25;  // of the newest measurement in what is remembered
constexpr double kMostFactor = 2;   // by which one measurement may differ: others run here, too

void remember(double ms, double& known) {
  if (known == 0) {
    known = ms;
    return;
  }
  known += kNewShare * (std::clamp(ms, known / kMostFactor, known * kMostFactor) - known);
}

}  // namespace

void StepClock::record(int n_decode_rows, int n_prompt_rows, double step_ms) {
  if (!(step_ms > 0)) return;
  if (n_prompt_rows == 0) {
    n_mixed_ = 0;
    remember(step_ms, decode_ms_[std::min(static_cast<size_t>(n_decode_rows), kMostRows)]);
    return;
  }
  if (n_decode_rows == 0) {
    remember(step_ms / n_prompt_rows, prompt_row_ms_);
    return;
  }
  ++n_mixed_;
  const double alone_ms = decode_ms(n_decode_rows);
  if (alone_ms == 0 || (step_ms <= alone_ms && mixed_row_ms_ == 0)) return;
  remember(std::max(0.0, step_ms - alone_ms) / n_prompt_rows, mixed_row_ms_);
}

double StepClock::decode_ms(int n_rows) const {
  const size_t at = std::min(static_cast<size_t>(n_rows), kMostRows);
  for (size_t i = at + 1; i-- > 0;) {
    if (decode_ms_[i] > 0) return decode_ms_[i];
  }
  for (size_t i = at; i <= kMostRows; ++i) {
    if (decode_ms_[i] > 0) return decode_ms_[i];
  }
  return 0;
}

double StepClock::step_ms(int n_decode_rows, int n_prompt_rows) const {
  if (n_decode_rows == 0) return n_prompt_rows * prompt_row_ms_;
  return decode_ms(n_decode_rows) + n_prompt_rows * mixed_row_ms();
}

int StepClock::prompt_rows(int n_decode_rows, double budget_ms) const {
  if (n_mixed_ >= kPlainEvery - 1) return 0;
  const double alone_ms = decode_ms(n_decode_rows);
  const double row_ms = mixed_row_ms();
  if (alone_ms == 0 || row_ms == 0) return kFirstPromptRows;
  const bool has_budget = budget_ms > 0;
  const double left_ms = has_budget ? budget_ms - alone_ms : (kStretch - 1) * alone_ms;
  const double fewest = has_budget ? 1 : kFewestPromptRows;
  return static_cast<int>(std::clamp(std::floor(left_ms / row_ms), fewest, double{kMostRows}));
}

}  // namespace edge
