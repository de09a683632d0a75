// Decoder: token rows in, logits or hidden states out: the one layer loop of the project, over
// Backend ops.
//
// Knows positions and pages, nothing of sequences, sampling or text. A step's result for a row
// depends only on that row and the pages it sees, never on the other rows, the split of a prompt
// into steps, or the number of threads.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "base/stop_check.h"
#include "model/adapter.h"
#include "model/spec.h"
#include "model/step_outputs.h"
#include "model/stepper.h"
#include "model/weights.h"

namespace edge {

class Decoder final : public Stepper {
 public:
  static constexpr int kMaxRows = 128;  // rows of one step; scratch is sized for it

  // Rows times experts used whose activations are held at a time; beyond, one part of a step's rows
  // goes through the experts after the other.
  static constexpr int64_t kMaxPairs = 1024;

  // What create() will take from the backend, for a check of the memory before it does.
  static Result<size_t> scratch_bytes_of(const ModelSpec& spec, const Weights& weights);

  // `weights` must outlive the decoder. Takes the backend. n_ctx: the longest context planned, by
  // which a model with two rotary tables gets one of them for good. Pages of the steps are laid out
  // as spec.kv_layout(kv_format) says.
  static Result<std::unique_ptr<Decoder>> create(const ModelSpec& spec, const Weights& weights,
                                                 std::unique_ptr<Backend> backend, int n_ctx,
                                                 KvFormat kv_format);

  Status step(std::span<const RowInput> rows, const StepOutputs& outputs,
              const StopCheck& should_stop) override;
  // kFeatureUnsupported where positions are learned.
  Status turn_keys(const KvSlotRange& slots, int n_positions) override;
  Status keep_slots(const KvView& view, std::span<const std::vector<int32_t>> kept) override;

  // Halves of a step whose layers run elsewhere (GraphDecoder), 1 <= rows <= kMaxRows.
  // What the first layer takes: [rows][d_model].
  Status embed(std::span<const RowInput> rows, std::span<float> x);
  // Logits, as `outputs` asks for them, of what the last layer gave: x [rows][d_model].
  Status head(std::span<const RowInput> rows, const float* x, const StepOutputs& outputs);

  // Bytes that rows with adapters up to this rank take besides, of which the decoder takes a part
  // with the first prepare_adapters() and the backend the rest when it needs them.
  static Result<size_t> adapter_scratch_bytes_of(const ModelSpec& spec, const Weights& weights,
                                                 int rank);
  Status prepare_adapters() override;

  bool has_top() const override { return backend_->has_top(); }
  const ModelSpec& spec() const { return *spec_; }
  size_t scratch_bytes() const override { return scratch_bytes_; }
  std::span<const uint64_t> expert_load(size_t layer) const override;

 private:
  Decoder() = default;
  struct Scratch;
  // Lays the scratch out in memory of `backend`; nullptr: only counts its bytes.
  static Status allocate(const ModelSpec& spec, const Weights& weights, Backend* backend,
                         Scratch& scratch, size_t& n_bytes);
  // Float rows of all activations that an adapter may read and the weights do not.
  static Status allocate_adapter_rows(const ModelSpec& spec, const Weights& weights,
                                      Backend* backend, Scratch& scratch, size_t& n_bytes);
  // The ffn of a layer with experts: s.model_act -> s.delta.
  void mix_experts(size_t layer);
  // Tells the backend what the first matmul of a layer, or after the last one the head, reads.
  void expect_layer(size_t layer);
  // Of a draft head: the embedding and the rows' hidden states become the layer's input. Returns
  // what is left to add to it.
  Residual fuse(std::span<const RowInput> rows);
  Status run_step(std::span<const RowInput> rows, const StepOutputs& outputs,
                  const StopCheck& should_stop);
  // The halves of a layer. more: what the half before leaves to be added to the residual stream
  // and, afterwards, what this one does. kCancelled when should_stop says so.
  // shares: as in StepOutputs, of the layers from this one on; null: not wanted.
  Status run_attention(size_t layer, const StopCheck& should_stop, Residual& more, float* shares);
  Status run_short_conv(size_t layer, const StopCheck& should_stop, Residual& more);
  Status run_ffn(size_t layer, const StopCheck& should_stop, Residual& more);
  Status write_outputs(const Residual& more, const StepOutputs& outputs,
                       const StopCheck& should_stop);
  void write_hidden(const Residual& more, std::span<const int32_t> rows,
                    std::span<float* const> hidden);
  void write_logits(const ActRows& act, std::span<float* const> logits);
  void write_tops(const ActRows& act, std::span<float* const> logits,
                  std::span<TopTokens* const> tops);
  FloatRows residual_stream() const;
  Norm norm_of(const NormWeights& weights) const;
  AttentionShape attention_shape(const LayerSpec& layer) const;
  const RopeTable& rope_of(const LayerSpec& layer) const;

  const ModelSpec* spec_ = nullptr;
  const Weights* weights_ = nullptr;
  std::unique_ptr<Backend> backend_;
  std::shared_ptr<Scratch> scratch_;
  KvLayout kv_;
  const Tensor* inv_freq_ = nullptr;  // of layers without a table of their own
  size_t scratch_bytes_ = 0;
};

}  // namespace edge
