#include "runtime/step_clock.h"

#include <algorithm>

namespace edge {
namespace {

constexpr double kNewShare = 0.25;  // of the newest measurement in what is remembered
constexpr double kMostFactor = 2;   // by which one measurement may differ: others run here, too

}  // namespace

void StepClock::record(int n_decode_rows, int n_prompt_rows, double step_ms) {
  if (!(step_ms > 0)) return;
  n_mixed_ = n_decode_rows == 0 || n_prompt_rows == 0 ? 0 : n_mixed_ + 1;
  const size_t at = std::min(static_cast<size_t>(n_decode_rows + n_prompt_rows), kMostRows);
  double& known = ms_[at];
  if (known == 0) known = step_ms;
  known += kNewShare * (std::clamp(step_ms, known / kMostFactor, known * kMostFactor) - known);
  // More rows never take less: what the machine was like before must not outweigh how it is now.
  for (size_t i = 1; i <= kMostRows; ++i) {
    if (ms_[i] == 0) continue;
    ms_[i] = i < at ? std::min(ms_[i], known) : std::max(ms_[i], known);
  }
}

size_t StepClock::known_from(size_t n_rows) const {
  while (n_rows <= kMostRows && ms_[n_rows] == 0) ++n_rows;
  return n_rows <= kMostRows ? n_rows : 0;
}

double StepClock::step_ms(int n_rows) const {
  const size_t at = std::min(static_cast<size_t>(n_rows), kMostRows);
  const size_t above = known_from(at);
  size_t below = at;
  while (below > 0 && ms_[below] == 0) --below;
  if (below == 0) return ms_[above];
  const double rows = static_cast<double>(at), rows_below = static_cast<double>(below);
  if (above == 0) return ms_[below] * rows / rows_below;
  if (above == below) return ms_[at];
  const double slope = (ms_[above] - ms_[below]) / (static_cast<double>(above) - rows_below);
  return ms_[below] + slope * (rows - rows_below);
}

int StepClock::prompt_rows(int n_decode_rows, double budget_ms) const {
  if (n_mixed_ >= kPlainEvery - 1) return 0;
  const size_t smallest = known_from(1);
  if (smallest == 0 || smallest > kFirstPromptRows) return kFirstPromptRows;
  const bool has_budget = budget_ms > 0;
  const double limit_ms = has_budget ? budget_ms : kStretch * step_ms(n_decode_rows);
  int n = has_budget ? 1 : kFewestPromptRows;
  while (n < static_cast<int>(kMostRows) && step_ms(n_decode_rows + n + 1) <= limit_ms) ++n;
  return n;
}

}  // namespace edge
