// StepClock: what steps of so many rows took so far, and from that how many rows of prompts a step
// can have beside rows of sequences that are decoding, without making those wait too long. Only
// steps really taken are measured. For one thread at a time.
#pragma once

#include <array>
#include <cstddef>

namespace edge {

class StepClock {
 public:
  static constexpr int kFirstPromptRows = 16;  // before anything is known
  // Without a budget a step with prompts takes so much longer than one without, ...
  static constexpr double kStretch = 1.75;
  // ... but this many rows it has: they cost little more than the weights that are read anyway.
  static constexpr int kFewestPromptRows = 4;
  // One step in so many leaves prompts out, so that what a step takes without them stays known
  // while a long one is read.
  static constexpr int kPlainEvery = 8;

  void record(int n_decode_rows, int n_prompt_rows, double step_ms);
  // Of a step of so many rows, of whichever kind: linear between the nearest numbers measured, in
  // proportion beyond the largest, that of the smallest below it. 0: nothing was measured yet.
  double step_ms(int n_rows) const;
  // Prompt rows beside n_decode_rows >= 1 within budget_ms (0: kStretch): none when a plain step is
  // due, else >= 1, or no prompt would ever be read.
  int prompt_rows(int n_decode_rows, double budget_ms) const;

 private:
  static constexpr size_t kMostRows = 128;
  size_t known_from(size_t n_rows) const;  // the least number measured that is not less, or 0

  std::array<double, kMostRows + 1> ms_{};  // by rows, never falling; 0: not measured
  int n_mixed_ = 0;                         // steps with both kinds since one without prompts
};

}  // namespace edge
