#include "speculation/cost_table.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace edge {

namespace {

constexpr double kSlowestRate = 1.0 / 16;  // of the moving average
// What another process found, the machine perhaps busier then, counts for less than one step of
// this.
constexpr double kLoadedWeight = 0.5;
constexpr double kMostOutlying = 2.0;  // times what was expected that one step may count for
// The first step of its size may be late for reasons of its own, and would be the last one.
constexpr double kMostNew = 1.5;
constexpr std::string_view kHeader = "edgellm step costs 1\n";
constexpr uint64_t kMostUs = 1'000'000'000;

}  // namespace

size_t CostTable::clamped(int n_rows) {
  return static_cast<size_t>(std::clamp(n_rows, 1, kMaxRows));
}

void CostTable::record(int n_rows, double ms) {
  if (!std::isfinite(ms) || ms <= 0.0) return;
  Measured& m = measured_[clamped(n_rows)];
  if (!is_fresh(m)) {
    if (n_fresh_ > 0) ms = std::min(ms, kMostNew * this->ms(n_rows));
    m = {};
  }
  m.last_step = ++n_steps_;
  if (m.weight >= 1.0) {
    spread_[n_spread_++ % kSpreadSteps] = static_cast<float>(ms / m.ms);
    ms = std::clamp(ms, m.ms / kMostOutlying, m.ms * kMostOutlying);
  }
  m.ms += (ms - m.ms) * std::max(1.0 / (m.weight + 1.0), kSlowestRate);
  m.weight = std::min(m.weight + 1.0, 1.0 / kSlowestRate);
  note_fresh(clamped(n_rows));
}

// After measured_ has changed there; it may have made others too old.
void CostTable::note_fresh(size_t n_rows) {
  const auto begin = fresh_.begin();
  auto end = std::remove_if(begin, begin + static_cast<std::ptrdiff_t>(n_fresh_),
                            [this](uint8_t size) { return !is_fresh(measured_[size]); });
  const auto place = std::lower_bound(begin, end, n_rows);
  if (place == end || *place != n_rows) {
    std::copy_backward(place, end, end + 1);
    *place = static_cast<uint8_t>(n_rows);
    ++end;
  }
  n_fresh_ = static_cast<size_t>(end - begin);
  known_ms_.fill(0.0);
}

bool CostTable::is_measured(int n_rows) const {
  const size_t n = clamped(n_rows);
  return is_fresh(measured_[n]) || (n_fresh_ > 0 && fresh_[0] < n && fresh_[n_fresh_ - 1] > n);
}

double CostTable::ms(int n_rows) const {
  double& known = known_ms_[clamped(n_rows)];
  if (known == 0.0) known = computed_ms(static_cast<int>(clamped(n_rows)));
  return known;
}

double CostTable::computed_ms(int n_rows) const {
  // How far the shape is off, averaged over the sizes measured: the near ones count most.
  static constexpr double kOwnDistance = 0.02;
  double sum = 0.0;
  double weights = 0.0;
  for (size_t i = 0; i < n_fresh_; ++i) {
    const int rows = fresh_[i];
    const double distance =
        kOwnDistance + std::abs(rows - n_rows) / static_cast<double>(std::max(rows, n_rows));
    const double weight = 1.0 / (distance * distance);
    sum += weight * measured_[fresh_[i]].ms / shape_.at(rows);
    weights += weight;
  }
  return shape_.at(n_rows) * (weights > 0.0 ? sum / weights : 1.0);
}

double CostTable::high_ms(int n_rows) const {
  const size_t n = std::min(n_spread_, kSpreadSteps);
  if (n == 0) return ms(n_rows);
  auto spread = spread_;
  const auto high = spread.begin() + static_cast<std::ptrdiff_t>(n * 95 / 100);
  std::nth_element(spread.begin(), high, spread.begin() + static_cast<std::ptrdiff_t>(n));
  return ms(n_rows) * std::max(1.0, static_cast<double>(*high));
}

std::string CostTable::to_text() const {
  std::string text(kHeader);
  for (size_t rows = 1; rows < measured_.size(); ++rows) {
    const Measured& m = measured_[rows];
    if (!is_fresh(m)) continue;
    const double us = std::clamp(m.ms * 1e3, 1.0, static_cast<double>(kMostUs));
    text += std::to_string(rows) + ' ' + std::to_string(std::llround(us)) + '\n';
  }
  return text;
}

std::optional<CostTable> CostTable::from_text(std::string_view text, CostShape shape) {
  if (!text.starts_with(kHeader)) return std::nullopt;
  text.remove_prefix(kHeader.size());
  CostTable table(shape);
  const auto number = [&text](uint64_t most, char end) -> uint64_t {
    uint64_t value = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const size_t n = static_cast<size_t>(stop - text.data());
    if (error != std::errc() || n == text.size() || *stop != end || value > most) return 0;
    text.remove_prefix(n + 1);
    return value;
  };
  for (uint64_t last = 0; !text.empty();) {
    const uint64_t rows = number(kMaxRows, ' ');
    const uint64_t us = rows == 0 ? 0 : number(kMostUs, '\n');
    if (us == 0 || rows <= last) return std::nullopt;
    table.measured_[rows] = {static_cast<double>(us) / 1e3, kLoadedWeight,
                             kLoadedFreshSteps - kFreshSteps};
    table.note_fresh(rows);
    last = rows;
  }
  return table;
}

}  // namespace edge
