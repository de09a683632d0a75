// DraftRows: one sequence of what drafts with rows of its own. Of a draft head a row is a token and
// the model's hidden state before it, or, drafting on, the head's own; of a small model a token.
// Keys and values are in pages of a cache of their own. Knows no sampling and no trees. For one
// thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/status.h"
#include "runtime/kv_cache.h"
#include "runtime/kv_sequence.h"
#include "runtime/step_model.h"

namespace edge {

constexpr KvFormat kDraftKvFormat = KvFormat::kF16;  // of a head

class DraftRows {
 public:
  // Of n_ctx >= 1 rows at most. `model`, which for kHead is the decoder of a DraftHead, and
  // `cache`, which has the groups of its layout, must outlive it. kMemoryBudget.
  enum class Of { kHead, kModel };
  static Result<std::unique_ptr<DraftRows>> create(StepModel& model, KvCache& cache, int n_ctx,
                                                   Of of = Of::kHead);

  int n_rows() const { return kv_->n_tokens(); }
  int n_ctx() const { return kv_->n_ctx(); }
  // Adds tokens.size() rows. hidden: [n][width]. Of the last m rows, m <= n, logits:
  // [m][n_vocab], and next: [m][width], the hidden states that rows behind them would have. Rows
  // that are done stay, where a later one fails: kContextOverflow, kInvalidArgument for lengths
  // that do not go together, and what a step can say.
  Status add(std::span<const int32_t> tokens, std::span<const float> hidden,
             std::span<float> logits, std::span<float> next);
  int n_vocab() const { return model_.n_vocab(); }
  int width() const { return width_; }  // of a hidden state; 0: rows have none
  // Keeps the first n rows, 0 <= n <= n_rows(), or none where a window has let go of others.
  void rewind(int n) { kv_->rewind(n); }

 private:
  DraftRows(StepModel& model, std::unique_ptr<KvSequence> kv, int width)
      : model_(model), kv_(std::move(kv)), width_(width) {}

  StepModel& model_;
  std::unique_ptr<KvSequence> kv_;
  const int width_;
};

}  // namespace edge
