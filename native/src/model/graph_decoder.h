// GraphDecoder: the steps of a model whose layers run as graphs (backends/step_graphs.h).
//
// A graph reads the past from a contiguous buffer of one sequence, sessions keep it in pages. Every
// step writes its new rows to both, so that pages are whole at any time: what is reused, saved or
// forked needs to know of no buffer. Where pages round, the buffer gets what they then hold: a text
// goes on alike from either. Buffers are filled from pages only where another sequence comes in.
//
// What stands before the first layer and behind the last one may be left to a Decoder on the CPU,
// and so may whole tokens behind those that graphs have room for: it finds the others in pages. A
// token's place alone says who computes it, so that what is reused is what would be computed.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "backends/step_graphs.h"
#include "kernels/kernels.h"
#include "model/decoder.h"
#include "model/spec.h"
#include "model/stepper.h"

namespace edge {

class GraphDecoder final : public Stepper {
 public:
  // That graphs are of a model like this: kTensorShape, or kFeatureUnsupported for what no graph
  // does.
  static Status check(const GraphFacts& facts, const ModelSpec& spec);

  // graphs: started, and checked. host: for the embedding and the head where graphs lack them, and
  // for tokens behind their capacity; null: there are none.
  GraphDecoder(const ModelSpec& spec, KvFormat kv_format, const KernelTable& kernels,
               std::unique_ptr<StepGraphs> graphs, std::unique_ptr<Decoder> host);

  // kFeatureUnsupported for hidden states and shares of attention; kDeviceFailed in the child of a
  // fork().
  Status step(std::span<const RowInput> rows, const StepOutputs& outputs,
              const StopCheck& should_stop) override;
  Status turn_keys(const KvSlotRange& slots, int n_positions) override;
  Status keep_slots(const KvView& view, std::span<const std::vector<int32_t>> kept) override;
  Status prepare_adapters() override;
  size_t scratch_bytes() const override;
  std::span<const uint64_t> expert_load(size_t) const override { return {}; }

 private:
  // A buffer of the graphs: the first n_slots of the sequence that had this stamp.
  struct Past {
    uint64_t stamp = 0;
    int n_slots = 0;
    uint64_t last_use = 0;
  };
  class Handout;  // of a step's logits

  // The first of the rows that one processor takes at once.
  size_t n_at_once(std::span<const RowInput> rows) const;
  bool is_in_graphs(const RowInput& row) const;
  Status run_sequence(std::span<const RowInput> rows, Handout& handout,
                      const StopCheck& should_stop);
  Result<std::vector<float>> embedded(std::span<const RowInput> rows);
  int buffer_of(const KvView& kv, int n_before);
  void load_pages(int buffer, const KvView& kv, int first, int end);
  Status store_rows(int buffer, std::span<const RowInput> rows);
  Status store_row(int buffer, const RowInput& row, GraphRow at);
  Status hand_out(std::span<const RowInput> rows, Handout& handout);

  const ModelSpec& spec_;
  const KvLayout kv_;
  const KernelTable& kernels_;
  std::unique_ptr<StepGraphs> graphs_;
  std::unique_ptr<Decoder> host_;
  std::array<Past, StepGraphs::kBuffers> pasts_;
  uint64_t n_uses_ = 0;
  std::vector<float> key_, value_;  // [head_dim], the widest
  const int64_t process_;           // whose threads run the graphs
};

}  // namespace edge
