#include "backends/gpu/gpu_backend.h"

#include <cmath>
#include <vector>

#include "backends/gpu/attend.h"
#include "backends/gpu/experts.h"
#include "backends/gpu/launcher.h"
#include "backends/gpu/step_rows.h"
#include "backends/gpu/top.h"

namespace edge {
namespace {

using gpu::groups_of;
using gpu::round_up;

class GpuBackend final : public Backend {
 public:
  GpuBackend(std::unique_ptr<gpu::Device> device, std::unique_ptr<Backend> host)
      : host_(std::move(host)), launcher_(std::move(device)) {}
  ~GpuBackend() override { wait(); }

  const char* name() const override { return device().name(); }
  bool shares_memory() const override { return false; }
  bool has_adapters() const override { return false; }
  bool has_short_conv() const override { return true; }
  PageBuffer::Allocate page_allocator() const override { return device().allocator(); }
  void wait() override { launcher_.wait(); }
  void fetch(const void* from, size_t n_bytes, void* to) override {
    launcher_.keep(device().fetch(from, n_bytes, to));
  }
  Result<size_t> weight_room() const override { return device().weight_room(); }
  Status load(std::span<const std::byte> weights) override { return device().load(weights); }

  Result<std::byte*> alloc(size_t n_bytes) override {
    EDGE_ASSIGN_OR_RETURN(PageBuffer buffer, device().allocator()(n_bytes));
    buffers_.push_back(std::move(buffer));
    return buffers_.back().data();
  }

  void begin_step(std::span<const RowInput> rows) override {
    launcher_.begin();  // waits: a step that was cancelled may have left kernels
    host_->begin_step(rows);
    rows_.begin(launcher_, rows);
  }

  Status end_step() override {
    const Result<bool> is_finite = device().end();
    launcher_.keep(is_finite.status());
    launcher_.keep(host_->end_step());
    if (!launcher_.status().is_ok() || is_finite.value()) return launcher_.status();
    return {
        Code::kNumeric,
        "an activation became infinite or NaN; the weights are broken or the format too narrow"};
  }

  void expect(std::initializer_list<const Tensor*>) override {}

  void embed(const Tensor& table, float scale, const Tensor* positions,
             const FloatRows& x) override {
    gpu::EmbedArgs args = {};
    args.rows = rows_.without_pages();
    args.x = launcher_.matrix_of(x);
    args.scale = scale;
    const gpu::Grid grid = {groups_of(x.n_cols, gpu::kElementThreads), n_step_rows()};
    args.table = launcher_.matrix_of(table);
    launcher_.launch(gpu::Launcher::kernel_of("embed_", table), args, grid, gpu::kElementThreads);
    if (positions == nullptr) return;
    args.table = launcher_.matrix_of(*positions);
    const bool is_plain = positions->format == Format::kF32;
    launcher_.launch(
        is_plain ? "plain_positions" : gpu::Launcher::kernel_of("positions_", *positions), args,
        grid, gpu::kElementThreads);
  }

  void rope_table(const float* inv_freq, float factor, RopeTable& out) override {
    if (!device().has_f64()) return host_->rope_table(inv_freq, factor, out);
    gpu::RopeArgs args = {};
    args.rows = rows_.without_pages();
    args.n_angles = out.n_rope / 2;
    args.inv_freq = launcher_.loaded(inv_freq, args.n_angles);
    args.cos = launcher_.at(const_cast<float*>(out.cos));
    args.sin = launcher_.at(const_cast<float*>(out.sin));
    args.factor = factor;
    launcher_.launch("rope_table", args,
                     {groups_of(args.n_angles, gpu::kElementThreads), n_step_rows()},
                     gpu::kElementThreads);
  }

  void norm_quant(const Residual& more, const FloatRows& x, std::span<const int32_t> pick,
                  const Norm& norm, ActNeeds needs, ActRows& out) override {
    out.set_rows(pick.empty() ? n_step_rows() : static_cast<int>(pick.size()));
    gpu::NormRowsArgs args = {};
    args.more = launcher_.residual_of(more);
    args.x = launcher_.matrix_of(x);
    args.pick = pick.empty() ? nullptr : launcher_.send(pick);
    args.norm = launcher_.norm_of(norm);
    args.out = launcher_.act_of(out, needs);
    args.flag = launcher_.flag();
    launcher_.launch("norm_rows", args, {out.n_rows}, gpu::kRowThreads);
  }

  void add_residual(const Residual& more, const FloatRows& x) override {
    gpu::AddResidualArgs args = {};
    args.more = launcher_.residual_of(more);
    args.x = launcher_.matrix_of(x);
    launcher_.launch("add_residual", args, {n_step_rows()}, gpu::kRowThreads);
  }

  void qkv_rope_store(const ActRows& act, const QkvWeights& w, const AttentionShape& shape,
                      const RopeTable& rope, const KvLayerLayout& kv, float* q) override {
    gpu::StoreArgs args = {};
    args.rows = rows_.with_pages(launcher_, kv.group);
    args.pages = gpu::pages_of(kv);
    args.flag = launcher_.flag();
    const auto finish = [&](const char* kernel, const Tensor& weight, gpu::Room room, int n_heads,
                            const Tensor* bias, const Tensor* norm) {
      gpu::HeadsArgs& heads = args.heads;
      heads.stride = round_up(weight.n_rows, kTileRows);
      float* raw = launcher_.take(room, n_step_rows() * heads.stride);
      launcher_.multiply(weight, act, raw, heads.stride);
      heads.raw = raw;
      heads.bias = launcher_.loaded(bias);
      heads.norm = {launcher_.loaded(norm), nullptr, w.norm_eps, NormKind::kRms};
      heads.n_norm = norm == nullptr ? 0 : norm->n_cols;
      launcher_.launch(kernel, args, {n_heads, n_step_rows()}, gpu::kHeadThreads);
    };
    args.heads.head_dim = shape.head_dim;
    turn_heads(rope, kv, w.balance, args.heads);
    args.heads.divides = true;
    args.heads.heads_per_scale = shape.n_heads / shape.n_kv_heads;
    args.q = launcher_.at(q);
    finish("finish_queries", *w.q, gpu::Room::kQueries, shape.n_heads, w.q_bias, w.q_norm);
    args.heads.divides = false;
    args.heads.heads_per_scale = 1;
    finish("store_keys", *w.k, gpu::Room::kKeys, shape.n_kv_heads, w.k_bias, w.k_norm);
    finish("store_values", *w.v, gpu::Room::kValues, shape.n_kv_heads, w.v_bias, nullptr);
  }

  void attention(float* q, const AttentionShape& shape, const KvLayerLayout& kv, ActNeeds needs,
                 ActRows& out) override {
    gpu::QuantizeArgs args = {};
    args.x.n_cols = int64_t{shape.n_heads} * shape.head_dim;
    args.x.stride = round_up(args.x.n_cols, kTileRows);
    args.x.data = launcher_.at(q);
    out.set_rows(n_step_rows());
    args.out = launcher_.act_of(out, needs);
    args.flag = launcher_.flag();
    attend(launcher_, rows_, args.x, shape, kv);
    launcher_.launch("quantize_rows", args, gpu::Launcher::block_grid(out), gpu::kRowThreads);
  }

  void attention_shares(const float* q, const AttentionShape& shape, const KvLayerLayout& kv,
                        float* shares) override {
    if (launcher_.waits_for_host()) host_->attention_shares(q, shape, kv, shares);
  }

  bool turn_keys(const KvSlotRange& slots, const KvLayerLayout& kv, const KeyTurn& turn) override {
    wait();
    return host_->turn_keys(slots, kv, turn);
  }

  bool keep_slots(const KvView& view, const KvLayerLayout& kv, int kv_head,
                  std::span<const int32_t> kept) override {
    wait();
    return host_->keep_slots(view, kv, kv_head, kept);
  }

  void proj_residual(const ActRows& act, const Tensor& weight, LoraSpan, float* delta,
                     int64_t stride) override {
    launcher_.multiply(weight, act, launcher_.at(delta), stride);
  }

  void ffn_in(const ActRows& act, const FfnIn& ffn, ActNeeds needs, ActRows& out) override {
    const bool has_gate = ffn.gate != nullptr;
    const Tensor& first = has_gate ? *ffn.gate : *ffn.up;
    gpu::Activation from = {.act = ffn.act};
    from.stride = first.n_strips() * kTileRows;
    const int64_t n = n_step_rows() * from.stride;
    float* gate = launcher_.take(gpu::Room::kQueries, n);
    float* up = has_gate ? launcher_.take(gpu::Room::kKeys, n) : nullptr;
    launcher_.multiply(first, act, gate, from.stride);
    if (has_gate) launcher_.multiply(*ffn.up, act, up, from.stride);
    from.gate = gate;
    from.up = up;
    from.gate_bias = launcher_.loaded(has_gate ? ffn.gate_bias : ffn.up_bias);
    from.up_bias = has_gate ? launcher_.loaded(ffn.up_bias) : nullptr;
    from.n_bias = first.n_rows;
    out.set_rows(n_step_rows());
    activate(launcher_, from, needs, out);
  }

  void moe_route(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
                 MoeRoutes& out) override {
    route_experts(launcher_, act, tensors, shape, out);
  }
  void moe_ffn(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
               const MoeRoutes& routes, MoeBuffers& buffers, float* delta,
               int64_t stride) override {
    run_experts(launcher_, act, tensors, shape, routes, buffers, delta, stride);
  }

  void short_conv(const ActRows& act, const ShortConv& conv, const KvLayerLayout& kv, float* bcx,
                  ActNeeds needs, ActRows& out) override {
    out.set_rows(n_step_rows());
    gpu::ShortConvArgs args = {};
    args.rows = rows_.with_pages(launcher_, kv.group);
    args.bcx = launcher_.at(bcx);
    args.stride = round_up(conv.in->n_rows, kTileRows);
    args.n_cols = static_cast<int64_t>(kv.state_cols);
    args.offset = kv.offset_bytes;
    args.taps = launcher_.loaded(conv.taps);
    args.n_taps = conv.n_taps;
    args.out = launcher_.act_of(out, needs);
    args.flag = launcher_.flag();
    launcher_.multiply(*conv.in, act, launcher_.at(bcx), args.stride);
    launcher_.launch("store_states", args,
                     {groups_of(args.n_cols, gpu::kElementThreads), n_step_rows()},
                     gpu::kElementThreads);
    launcher_.launch("convolve_rows", args, gpu::Launcher::block_grid(out), gpu::kRowThreads);
  }

  void head(const ActRows& act, const Tensor& weight, float softcap, float* logits,
            int64_t stride) override {
    gpu::LogitsArgs args = {launcher_.at(logits), weight.n_rows, stride, launcher_.flag(), softcap};
    launcher_.multiply(weight, act, args.logits, stride);
    launcher_.launch("finish_logits", args, {groups_of(args.n, gpu::kElementThreads), act.n_rows},
                     gpu::kElementThreads);
  }

  bool has_top() const override { return device().has_f64(); }
  void top(const float* logits, int64_t n, int64_t stride, int n_rows, TopTokens* out) override {
    top_tokens(launcher_, logits, n, stride, n_rows, out);
  }

 private:
  int n_step_rows() const { return rows_.count(); }
  gpu::Device& device() const { return launcher_.device(); }
  void turn_heads(const RopeTable& rope, const KvLayerLayout& kv, const KeyBalance& balance,
                  gpu::HeadsArgs& heads) {
    heads.n_rope = rope.n_rope;
    heads.cos = launcher_.at(rope.cos);
    heads.sin = launcher_.at(rope.sin);
    heads.mixes = kv.mixes_keys;
    const int n_mixed = kv.head_dim & -kv.head_dim;
    heads.mix_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(n_mixed)));
    if (!kv.balances_keys) return;
    heads.mean = launcher_.loaded(balance.mean);
    heads.scale = launcher_.loaded(balance.scale);
  }

  std::unique_ptr<Backend> host_;
  gpu::Launcher launcher_;
  std::vector<PageBuffer> buffers_;
  gpu::StepRows rows_;  // of the step
};

}  // namespace

std::unique_ptr<Backend> create_gpu_backend(std::unique_ptr<gpu::Device> device,
                                            std::unique_ptr<Backend> host) {
  return std::make_unique<GpuBackend>(std::move(device), std::move(host));
}

}  // namespace edge
