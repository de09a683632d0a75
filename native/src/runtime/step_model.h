// StepModel: what a session needs of a model: one pass over the weights for a few rows. The engine
// implements it with a Stepper, tests with a function.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"
#include "base/stop_check.h"
#include "model/step_outputs.h"

namespace edge {

class StepModel {
 public:
  virtual ~StepModel() = default;
  virtual int n_vocab() const = 0;
  virtual int d_model() const = 0;                // values of a hidden state
  virtual int max_rows() const = 0;               // of one step
  virtual bool has_head() const { return true; }  // without one no step is asked for logits
  virtual bool has_top() const { return false; }  // StepOutputs::tops
  virtual int n_kv_heads() const { return 0; }    // of all layers together
  // That a token may stand at.
  virtual int max_positions() const { return std::numeric_limits<int>::max(); }
  // Drafts that a step may have behind a sequence's own row, and whether as a tree: otherwise they
  // stand one behind the other.
  virtual int most_drafts() const { return std::numeric_limits<int>::max(); }
  virtual bool has_draft_trees() const { return true; }
  // As Stepper::step: writes K and V of all rows to their pages, and what `outputs` asks for. Calls
  // take turns; kCancelled when the model is being closed or should_stop says so.
  virtual Status step(std::span<const RowInput> rows, const StepOutputs& outputs,
                      const StopCheck& should_stop) = 0;

  // Stepper::turn_keys() and keep_slots(), in turn with the steps.
  virtual Status turn_keys(const KvSlotRange&, int) { return cannot_edit(); }
  virtual Status keep_slots(const KvView&, std::span<const std::vector<int32_t>>) {
    return cannot_edit();
  }
  // Whether the first pages of a sequence have a format of their own.
  virtual bool has_own_first_pages() const { return false; }
  // What stands in slot `from` of a sequence, whose pages no step has, comes to stand in slot `to`,
  // which has the same format. At any time.
  virtual Status move_slot(const KvView&, int, int) { return cannot_edit(); }

 private:
  static Status cannot_edit() {
    return {Code::kFeatureUnsupported, "this model cannot change KV that is there"};
  }
};

}  // namespace edge
