// One layer of a made-up model and one step through it, for every backend alike: the same weights,
// the same pages, the same activations. tests/backends/ops/ops.h runs the ops of a Backend on it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.h"

namespace edge::test {

struct OpShape {
  const char* name = "";
  int64_t d_model = 0;
  int n_heads = 0, n_kv_heads = 0, head_dim = 0;
  int64_t d_ffn = 0;
  int64_t n_vocab = 0;
  int n_rope = 0;
  int n_rows = 1;  // of the step, behind n_past tokens of their sequence
  int n_past = 0;
  int n_sequences = 1;  // that the rows are of, as many of each
  int n_tail = 0;       // > 0: the rows are a tree of drafts, and the last sees so many in a row
  Format format = Format::kE4_16;
  Act act = Act::kA8;
  KvFormat kv_format = KvFormat::kK8V8;
  NormKind norm = NormKind::kRms;
  FfnAct ffn_act = FfnAct::kSilu;
  bool is_plain = true;    // no biases, head norms, post norms, balanced or mixed keys
  bool norms_all = false;  // a head norm as long as all heads
  bool has_gate = true;
  float softcap = 0;
  int window = 0;
  // > 0: also a mixture of experts, all widths multiples of 16, and a short convolution.
  int n_experts = 0, n_used = 0, n_taps = 0;
  int64_t d_expert = 0, d_shared = 0;
  bool shared_gate = false;
  int expert_rows = 2;  // at a time, so that a step takes several turns
};

// Weights of a shape, in one range of memory as a mapped file is.
class OpWeights {
 public:
  explicit OpWeights(const OpShape& shape, uint32_t seed = 1);
  OpWeights(const OpWeights&) = delete;
  OpWeights& operator=(const OpWeights&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

  Tensor embd, positions, inv_freq;
  Tensor norm, norm_bias, post_norm, post_bias;
  Tensor q, k, v, q_bias, k_bias, v_bias, q_norm, k_norm, k_mean, k_scale;
  Tensor o, o_bias, gate, up, gate_bias, up_bias, down, output;
  Tensor router, gate_exps, up_exps, down_exps, gate_shexp, up_shexp, down_shexp, shared_gate;
  Tensor conv_in, conv_taps;

 private:
  struct Wanted {
    Tensor* tensor;
    float low, high;
  };
  void want(Tensor& tensor, Format format, Act act, int64_t n_rows, int64_t n_cols, float low,
            float high);
  void fill(uint32_t seed);
  std::vector<Wanted> wanted_;
  std::vector<std::byte> bytes_;
};

// A step of `shape` on a backend: memory of the backend, and pages that hold n_past tokens.
class OpRig {
 public:
  // `weights` must outlive the rig. Fails as the backend does.
  static Result<std::unique_ptr<OpRig>> create(const OpShape& shape, const OpWeights& weights,
                                               std::unique_ptr<Backend> backend);
  OpRig(const OpRig&) = delete;
  OpRig& operator=(const OpRig&) = delete;

  const OpShape& shape() const { return shape_; }
  const OpWeights& weights() const { return weights_; }
  Backend& backend() { return *backend_; }
  std::span<const RowInput> rows() const { return rows_; }

  AttentionShape attention_shape() const;
  FloatRows x() const { return {x_, shape_.d_model, x_stride_}; }
  Norm norm() const;
  // What is added to x: the delta, and in a shape that is not plain its bias and norm.
  Residual residual() const;
  QkvWeights qkv() const;
  FfnIn ffn() const;
  MoeTensors experts() const;
  MoeShape moe_shape() const;
  ShortConv short_conv() const;
  // The bytes of all pages, of activations in every form that is used, and of floats.
  std::string page_bytes() const;
  static std::string bytes_of(const ActRows& act, ActNeeds needs);
  static std::string bytes_of(const float* x, int64_t n);

  int64_t x_stride_ = 0, q_stride_ = 0, logits_stride_ = 0;
  float *x_ = nullptr, *delta_ = nullptr, *q_ = nullptr, *logits_ = nullptr;
  ActRows model_act, heads_act, ffn_act;
  RopeTable rope;
  KvLayerLayout kv;
  // Of the experts and the short convolution, where the shape has them.
  MoeRoutes routes;
  MoeBuffers buffers;
  KvLayerLayout state;
  float* bcx_ = nullptr;
  ActRows conv_act;
  TopTokens* top_ = nullptr;

 private:
  OpRig(const OpShape& shape, const OpWeights& weights, std::unique_ptr<Backend> backend);
  Status allocate();
  template <class T>
  Status take(int64_t n, T*& out);
  Status take_act(int64_t n_cols, ActRows& act, int64_t n_rows);
  Status allocate_mixers();
  Status make_pages();
  Status make_page(const KvLayerLayout& layer, int number, std::vector<std::byte*>& pages);
  void make_rows();

  OpShape shape_;
  const OpWeights& weights_;
  std::unique_ptr<Backend> backend_;
  std::vector<PageBuffer> memory_;
  std::vector<size_t> page_sizes_;
  std::vector<std::vector<std::byte*>> pages_;  // by sequence, and of each those of the state
  std::vector<KvTable> tables_;
  std::vector<int32_t> tail_;
  std::vector<RowInput> rows_;
};

}  // namespace edge::test
