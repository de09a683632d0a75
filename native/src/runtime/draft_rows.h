// DraftRows: one sequence of a draft head: rows of a token and the model's hidden state before it,
// or, drafting on, the head's own. Its keys and values are F16, in pages of a cache of their own.
// Knows no sampling and no trees. For one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/status.h"
#include "runtime/kv_cache.h"
#include "runtime/kv_sequence.h"
#include "runtime/step_model.h"

namespace edge {

constexpr KvFormat kDraftKvFormat = KvFormat::kF16;

class DraftRows {
 public:
  // Of n_ctx >= 1 rows at most. `head`: the decoder of a DraftHead; it and `cache`, which has the
  // groups of the head's layout in kDraftKvFormat, must outlive it. kMemoryBudget.
  static Result<std::unique_ptr<DraftRows>> create(StepModel& head, KvCache& cache, int n_ctx);

  int n_rows() const { return kv_->n_tokens(); }
  int n_ctx() const { return kv_->n_ctx(); }
  // Adds tokens.size() rows. hidden: [n][d_model]. Of the last m rows, m <= n, logits:
  // [m][head.n_vocab()], and next: [m][d_model], the hidden states that rows behind them would
  // have. Rows that are done stay, where a later one fails: kContextOverflow, kInvalidArgument for
  // lengths that do not go together, and what a step can say.
  Status add(std::span<const int32_t> tokens, std::span<const float> hidden,
             std::span<float> logits, std::span<float> next);
  int n_vocab() const { return head_.n_vocab(); }
  int d_model() const { return head_.d_model(); }
  // Keeps the first n rows, 0 <= n <= n_rows().
  void rewind(int n) { kv_->rewind(n); }

 private:
  DraftRows(StepModel& head, std::unique_ptr<KvSequence> kv) : head_(head), kv_(std::move(kv)) {}

  StepModel& head_;
  std::unique_ptr<KvSequence> kv_;
};

}  // namespace edge
