// The part of the engine's interface that looks at a model's draft head.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "edgellm/engine.h"

namespace edgellm {

// The draft head of a model's file, on one sequence of its own: for measurements. For one thread at
// a time.
class DraftHead {
 public:
  struct Rows {
    std::vector<float> logits;  // [n][ids()]
    std::vector<float> hidden;  // [n][d_model], which rows that draft on take
  };
  // feature_unsupported where the file has none. n_ctx: of rows; 0: the most.
  explicit DraftHead(const Model& model, int n_ctx = 0);
  const std::vector<int32_t>& ids() const;  // that it can draft, ascending
  int n_rows() const;
  // Behind those there are: tokens, and [n][d_model] hidden states of the rows that chose them.
  Rows add(std::span<const int32_t> tokens, std::span<const float> hidden);
  void rewind(int n_rows);  // keeps the first

  struct Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace edgellm
