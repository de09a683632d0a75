// Stepper: what makes the steps of a model: the Decoder, operation by operation on a Backend, or
// the GraphDecoder, which gives whole steps to graphs that someone else runs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "base/stop_check.h"
#include "model/step_outputs.h"

namespace edge {

class Stepper {
 public:
  virtual ~Stepper() = default;

  // Writes K and V of every row to its page, and what `outputs` asks for: logits only of a model
  // with a head. Rows of one sequence must be consecutive with ascending positions, and its pages
  // must exist. 1 <= rows <= Decoder::kMaxRows. kCancelled, with nothing but unused slots of pages
  // written, when should_stop says so between two operations.
  virtual Status step(std::span<const RowInput> rows, const StepOutputs& outputs,
                      const StopCheck& should_stop) = 0;

  // Whether a step can give the likeliest tokens instead of logits.
  virtual bool has_top() const { return false; }

  // Outside a step, on the pages of one sequence.
  // All keys that turn, as if their tokens stood n_positions earlier. kFeatureUnsupported, before
  // anything is written, where they cannot; kNumeric, with the keys unspecified.
  virtual Status turn_keys(const KvSlotRange& slots, int n_positions) = 0;
  // kept[h] ascends: of kv head h, counted over all layers, slot kept[h][i] becomes slot i.
  // kNumeric, with the slots unspecified, if something is too large for the format of the first
  // pages.
  virtual Status keep_slots(const KvView& view, std::span<const std::vector<int32_t>> kept) = 0;

  // Before the first step with a row that has an adapter; idempotent.
  virtual Status prepare_adapters() = 0;

  virtual size_t scratch_bytes() const = 0;
  // How many rows went to each expert of a layer so far, those of steps that failed included; empty
  // for a layer without experts. Not while a step runs.
  virtual std::span<const uint64_t> expert_load(size_t layer) const = 0;
};

}  // namespace edge
