// HeadDrafter: the draft head of a model behind Drafter, for one sequence. Its rows are tokens with
// the model's hidden state before each, which the session tells it. For one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/row_drafter.h"

namespace edge {

class HeadDrafter final : public RowDrafter {
 public:
  static constexpr int kMostPasses = 4;
  static constexpr size_t kMostUnread = 512;  // tokens of a prompt; those before are not read
  // A head that learnt by divergence is less sure than its model: of the demo's prose, drawn at 1,
  // 1.99 tokens a step instead of 1.90, at 0.7 as many either way.
  static constexpr double kTemperature = 0.9;

  // ids: DraftHead::ids(), which must outlive it, as must `acceptance`. n_head_bytes: of the head's
  // own memory that is this sequence's, for memory_bytes().
  HeadDrafter(std::unique_ptr<DraftRows> rows, std::span<const int32_t> ids,
              const Acceptance& acceptance, size_t n_head_bytes);

  void observe(const DraftObservation& observation) override;
  void rewind(std::span<const int32_t> tokens) override;
  size_t memory_bytes() const override;
  bool wants_hidden() const override { return true; }

 private:
  static constexpr float kLeastPath = 0.2F;

  bool read_committed(std::span<const int32_t> tokens) override;
  void forget(size_t n_tokens);

  size_t first_ = 0;             // token of row 0
  size_t n_tokens_ = 0;          // observed
  std::vector<int32_t> unread_;  // the last of them, which have no rows yet
  std::vector<float> hidden_;    // [unread][d_model]
};

}  // namespace edge
