#include "backends/gpu/split_backend.h"

namespace edge {
namespace {

class SplitBackend final : public Backend {
 public:
  SplitBackend(std::unique_ptr<Backend> device, Backend& host)
      : device_(std::move(device)), host_(host) {}

  const char* name() const override { return device_->name(); }
  bool shares_memory() const override { return device_->shares_memory(); }
  void wait() override { device_->wait(); }
  void fetch(const void* from, size_t n_bytes, void* to) override {
    device_->fetch(from, n_bytes, to);
  }
  Result<size_t> weight_room() const override { return device_->weight_room(); }
  Status load(std::span<const std::byte> weights) override { return device_->load(weights); }
  void set_host_layers(size_t n) override { n_host_layers_ = n; }
  PageBuffer::Allocate page_allocator() const override { return device_->page_allocator(); }
  bool has_experts() const override { return device_->has_experts(); }
  bool has_adapters() const override { return device_->has_adapters(); }
  bool has_short_conv() const override { return device_->has_short_conv(); }
  bool has_top() const override { return device_->has_top(); }
  Result<std::byte*> alloc(size_t n_bytes) override { return device_->alloc(n_bytes); }

  // The device's step is the host's, too.
  void begin_step(std::span<const RowInput> rows) override {
    device_->begin_step(rows);
    now_ = n_host_layers_ > 0 ? &host_ : device_.get();
  }
  // What the host has made is there when it returns, so that kernels may be queued behind it.
  void begin_layer(size_t layer) override {
    if (layer >= n_host_layers_) now_ = device_.get();
  }
  Status end_step() override { return device_->end_step(); }

  void expect(std::initializer_list<const Tensor*> weights) override { now_->expect(weights); }
  void embed(const Tensor& table, float scale, const Tensor* positions,
             const FloatRows& x) override {
    now_->embed(table, scale, positions, x);
  }
  void rope_table(const float* inv_freq, float factor, RopeTable& out) override {
    now_->rope_table(inv_freq, factor, out);
  }
  void norm_quant(const Residual& more, const FloatRows& x, std::span<const int32_t> pick,
                  const Norm& norm, ActNeeds needs, ActRows& out) override {
    now_->norm_quant(more, x, pick, norm, needs, out);
  }
  void add_residual(const Residual& more, const FloatRows& x) override {
    now_->add_residual(more, x);
  }
  void qkv_rope_store(const ActRows& act, const QkvWeights& weights, const AttentionShape& shape,
                      const RopeTable& rope, const KvLayerLayout& kv, float* q) override {
    now_->qkv_rope_store(act, weights, shape, rope, kv, q);
  }
  void attention(float* q, const AttentionShape& shape, const KvLayerLayout& kv, ActNeeds needs,
                 ActRows& out) override {
    now_->attention(q, shape, kv, needs, out);
  }
  void attention_shares(const float* q, const AttentionShape& shape, const KvLayerLayout& kv,
                        float* shares) override {
    now_->attention_shares(q, shape, kv, shares);
  }
  bool turn_keys(const KvSlotRange& slots, const KvLayerLayout& kv, const KeyTurn& turn) override {
    return device_->turn_keys(slots, kv, turn);
  }
  bool keep_slots(const KvView& view, const KvLayerLayout& kv, int kv_head,
                  std::span<const int32_t> kept) override {
    return device_->keep_slots(view, kv, kv_head, kept);
  }
  void short_conv(const ActRows& act, const ShortConv& conv, const KvLayerLayout& kv, float* bcx,
                  ActNeeds needs, ActRows& out) override {
    now_->short_conv(act, conv, kv, bcx, needs, out);
  }
  void proj_residual(const ActRows& act, const Tensor& weight, LoraSpan lora, float* delta,
                     int64_t stride) override {
    now_->proj_residual(act, weight, lora, delta, stride);
  }
  void ffn_in(const ActRows& act, const FfnIn& ffn, ActNeeds needs, ActRows& out) override {
    now_->ffn_in(act, ffn, needs, out);
  }
  void moe_route(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
                 MoeRoutes& out) override {
    now_->moe_route(act, tensors, shape, out);
  }
  void moe_ffn(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
               const MoeRoutes& routes, MoeBuffers& buffers, float* delta,
               int64_t stride) override {
    now_->moe_ffn(act, tensors, shape, routes, buffers, delta, stride);
  }
  void head(const ActRows& act, const Tensor& weight, float softcap, float* logits,
            int64_t stride) override {
    now_->head(act, weight, softcap, logits, stride);
  }
  void top(const float* logits, int64_t n, int64_t stride, int n_rows, TopTokens* out) override {
    now_->top(logits, n, stride, n_rows, out);
  }

 private:
  std::unique_ptr<Backend> device_;
  Backend& host_;
  Backend* now_ = nullptr;  // of the layer of the step
  size_t n_host_layers_ = 0;
};

}  // namespace

std::unique_ptr<Backend> create_split_backend(std::unique_ptr<Backend> device, Backend& host) {
  return std::make_unique<SplitBackend>(std::move(device), host);
}

}  // namespace edge
