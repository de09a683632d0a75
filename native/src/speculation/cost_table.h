// CostTable: how long a step of so many rows takes, t(K), by what steps took; where none were, by
// the shape of the roofline max(t_mem, t_unpack + K * t_mac) (docs/SPECULATION.md). No clock in it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace edge {

// In units of reading the weights from memory once.
struct CostShape {
  double unpack = 0.76;
  double mac = 0.0925;  // a row

  double at(int n_rows) const {
    const double compute = unpack + mac * n_rows;
    return compute > 1.0 ? compute : 1.0;
  }
};

class CostTable {
 public:
  static constexpr int kMaxRows = 64;           // larger steps count as this many
  static constexpr int64_t kFreshSteps = 1000;  // what was not seen for so many steps is forgotten
  static constexpr int64_t kLoadedFreshSteps = 64;  // the same of what another process found

  explicit CostTable(CostShape shape = {}) : shape_(shape) {}

  // A step of n_rows took `ms`; anything but a positive finite time is ignored.
  void record(int n_rows, double ms);
  // Steps of that size were taken, or both smaller and larger ones, and not too long ago.
  bool is_measured(int n_rows) const;
  // Milliseconds; in units of the shape while nothing was measured.
  double ms(int n_rows) const;
  // ms() that 95 of 100 steps stay below, by how far the last ones were from what was expected.
  double high_ms(int n_rows) const;

  // For the next process: text of a few lines. from_text: nothing of what is not exactly such.
  std::string to_text() const;
  static std::optional<CostTable> from_text(std::string_view text, CostShape shape = {});

 private:
  struct Measured {
    double ms = 0.0;
    double weight = 0.0;    // steps that count
    int64_t last_step = 0;  // of all steps recorded
  };
  bool is_fresh(const Measured& measured) const {
    return measured.weight > 0.0 && n_steps_ - measured.last_step <= kFreshSteps;
  }
  static size_t clamped(int n_rows);
  void note_fresh(size_t n_rows);
  double computed_ms(int n_rows) const;

  CostShape shape_;
  int64_t n_steps_ = 0;
  std::array<Measured, kMaxRows + 1> measured_{};
  std::array<uint8_t, kMaxRows> fresh_{};  // sizes, ascending
  size_t n_fresh_ = 0;
  mutable std::array<double, kMaxRows + 1> known_ms_{};  // ms() since the last record(); 0: not yet
  static constexpr size_t kSpreadSteps = 64;
  std::array<float, kSpreadSteps> spread_{};  // of the last steps: taken / expected
  size_t n_spread_ = 0;
};

}  // namespace edge
