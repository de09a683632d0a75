// StepClock: what steps took so far, and from that how many rows of prompts a step can have beside
// rows of sequences that are decoding, without making those wait too long. Only steps really taken
// are measured. For one thread at a time.
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
  // Of a step of so many rows that decode; 0: none was measured yet, of any number.
  double decode_ms(int n_rows) const;
  // Of a step of such rows, as far as it can be known; 0: not at all.
  double step_ms(int n_decode_rows, int n_prompt_rows) const;
  // Prompt rows beside n_decode_rows >= 1 within budget_ms (0: kStretch): none when a plain step is
  // due, else >= 1, or no prompt would ever be read.
  int prompt_rows(int n_decode_rows, double budget_ms) const;

 private:
  static constexpr size_t kMostRows = 128;
  double mixed_row_ms() const { return mixed_row_ms_ > 0 ? mixed_row_ms_ : prompt_row_ms_; }
  std::array<double, kMostRows + 1> decode_ms_{};  // by rows; 0: not measured
  double mixed_row_ms_ = 0;                        // a row of a prompt beside rows that decode
  double prompt_row_ms_ = 0;                       // in steps of prompts alone
  int n_mixed_ = 0;                                // steps with both since one without prompts
};

}  // namespace edge
