// StepOutputs: what a step gives out of the rows it was given, beside their keys and values.
#pragma once

#include <cstdint>
#include <span>

#include "backends/top_tokens.h"

namespace edge {

// Rows are indices into the step's rows, ascending, in one of the lists at most.
struct StepOutputs {
  std::span<const int32_t> rows = {};  // whose logits are wanted; without any the head does not run
  std::span<float* const> logits = {};  // of each of them, where its [n_vocab] go
  // Of each of `rows`, where its likeliest tokens go instead of its logits, which then are null;
  // null: its logits are wanted, and empty: all of them. Only of a model that gives them.
  std::span<TopTokens* const> tops = {};
  // Of each of `rows`, where its hidden state goes, too, as of `hidden`; null: not wanted, and
  // empty: of none.
  std::span<float* const> row_hidden = {};
  std::span<const int32_t> hidden_rows = {};
  // Of each of them, where its [d_model] go: what the head reads, the final norm's output before it
  // is quantized.
  std::span<float* const> hidden = {};
  // [kv heads of all layers, layer by layer][slots up to the last row's]: how much attention each
  // slot gets from all rows, which are of one sequence without windows; null: not wanted.
  float* shares = nullptr;
};

}  // namespace edge
