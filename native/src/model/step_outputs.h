// StepOutputs: what a step gives out of the rows it was given, beside their keys and values.
#pragma once

#include <cstdint>
#include <span>

namespace edge {

struct StepOutputs {
  std::span<const int32_t> rows;  // indices into the step's rows, ascending; may be empty
  float* logits = nullptr;        // [rows.size()][n_vocab]; null: the head does not run
  float* hidden = nullptr;        // [rows.size()][d_model], what the head reads: the final norm's
                                  // output before it is quantized; null: not wanted
};

}  // namespace edge
