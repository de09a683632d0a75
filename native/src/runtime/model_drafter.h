// ModelDrafter: a small model with the same tokens behind Drafter, for one sequence: another
// file's, or the first layers of the model itself. Has keys and values of its own for the last
// tokens of the text, which go back with it. For one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "runtime/row_drafter.h"

namespace edge {

class ModelDrafter final : public RowDrafter {
 public:
  static constexpr int kMostPasses = 8;

  // n_ids: ids that both models know, from 0 on. Of rows.n_ctx() > 2 * kMostPasses tokens it
  // forgets the older half when they are full. `acceptance` must outlive it; n_bytes: of its keys
  // and values, for memory_bytes().
  ModelDrafter(DrafterKind kind, std::unique_ptr<DraftRows> rows, int n_ids,
               const Acceptance& acceptance, size_t n_bytes);

  void observe(const DraftObservation& observation) override;
  void rewind(std::span<const int32_t> tokens) override;

 private:
  static constexpr float kLeastPath = 0.1F;

  bool read_committed(std::span<const int32_t> tokens) override;
  void begin_at(size_t token);

  size_t n_ids_;
  size_t first_ = 0;  // token of row 0
};

}  // namespace edge
