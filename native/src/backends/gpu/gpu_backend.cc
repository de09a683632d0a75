#include "backends/gpu/gpu_backend.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "backends/gpu/args.h"
#include "backends/gpu/attention_plan.h"
#include "backends/gpu/matmul_plan.h"

namespace edge {
namespace {

constexpr int64_t kPartialFloats = int64_t{1} << 24;  // of segments at a time: 64 MiB
constexpr int64_t kBlocksPerGroup = gpu::kRowThreads / gpu::kWarp;

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
int64_t groups_of(int64_t n, int64_t per_group) { return (n + per_group - 1) / per_group; }

class GpuBackend final : public Backend {
 public:
  GpuBackend(std::unique_ptr<gpu::Device> device, std::unique_ptr<Backend> host)
      : host_(std::move(host)), device_(std::move(device)) {}
  ~GpuBackend() override { wait(); }

  const char* name() const override { return device_->name(); }
  bool shares_memory() const override { return false; }
  bool has_adapters() const override { return false; }
  bool has_short_conv() const override { return true; }
  PageBuffer::Allocate page_allocator() const override { return device_->allocator(); }
  void wait() override { keep(device_->wait()); }
  void fetch(const float* from, int64_t n, float* to) override {
    keep(device_->fetch(from, n, to));
  }
  Status load(std::span<const std::byte> weights) override { return device_->load(weights); }

  Result<std::byte*> alloc(size_t n_bytes) override {
    EDGE_ASSIGN_OR_RETURN(PageBuffer buffer, device_->allocator()(n_bytes));
    buffers_.push_back(std::move(buffer));
    return buffers_.back().data();
  }

  void begin_step(std::span<const RowInput> rows) override {
    status_ = device_->begin();  // waits: a step that was cancelled may have left kernels
    host_->begin_step(rows);
    rows_ = rows;
    send_rows();
  }

  Status end_step() override {
    const Result<bool> is_finite = device_->end();
    keep(is_finite.status());
    keep(host_->end_step());
    if (!status_.is_ok() || is_finite.value()) return status_;
    return {
        Code::kNumeric,
        "an activation became infinite or NaN; the weights are broken or the format too narrow"};
  }

  void expect(std::initializer_list<const Tensor*>) override {}

  void embed(const Tensor& table, float scale, const Tensor* positions,
             const FloatRows& x) override {
    gpu::EmbedArgs args = {};
    args.rows = {device_rows_, nullptr};
    args.x = matrix_of(x);
    args.scale = scale;
    const gpu::Grid grid = {groups_of(x.n_cols, gpu::kElementThreads), n_step_rows()};
    args.table = matrix_of(table);
    launch(kernel_of("embed_", table), args, grid, gpu::kElementThreads);
    if (positions == nullptr) return;
    args.table = matrix_of(*positions);
    const bool is_plain = positions->format == Format::kF32;
    launch(is_plain ? "plain_positions" : kernel_of("positions_", *positions), args, grid,
           gpu::kElementThreads);
  }

  void rope_table(const float* inv_freq, float factor, RopeTable& out) override {
    if (!device_->has_f64()) return host_->rope_table(inv_freq, factor, out);
    gpu::RopeArgs args = {};
    args.rows = {device_rows_, nullptr};
    args.n_angles = out.n_rope / 2;
    args.inv_freq = loaded(inv_freq, args.n_angles);
    args.cos = at(const_cast<float*>(out.cos));
    args.sin = at(const_cast<float*>(out.sin));
    args.factor = factor;
    launch("rope_table", args, {groups_of(args.n_angles, gpu::kElementThreads), n_step_rows()},
           gpu::kElementThreads);
  }

  void norm_quant(const Residual& more, const FloatRows& x, std::span<const int32_t> pick,
                  const Norm& norm, ActNeeds needs, ActRows& out) override {
    out.set_rows(pick.empty() ? n_step_rows() : static_cast<int>(pick.size()));
    gpu::NormRowsArgs args = {};
    args.more = residual_of(more);
    args.x = matrix_of(x);
    args.pick = pick.empty() ? nullptr : send(pick);
    args.norm = norm_of(norm);
    args.out = act_of(out, needs);
    args.flag = device_->flag();
    launch("norm_rows", args, {out.n_rows}, gpu::kRowThreads);
  }

  void add_residual(const Residual& more, const FloatRows& x) override {
    gpu::AddResidualArgs args = {};
    args.more = residual_of(more);
    args.x = matrix_of(x);
    launch("add_residual", args, {n_step_rows()}, gpu::kRowThreads);
  }

  void qkv_rope_store(const ActRows& act, const QkvWeights& w, const AttentionShape& shape,
                      const RopeTable& rope, const KvLayerLayout& kv, float* q) override {
    gpu::StoreArgs args = {};
    args.rows = rows_with_pages(kv.group);
    args.pages = gpu::pages_of(kv);
    args.flag = device_->flag();
    const auto finish = [&](const char* kernel, const Tensor& weight, gpu::Room room, int n_heads,
                            const Tensor* bias, const Tensor* norm) {
      gpu::HeadsArgs& heads = args.heads;
      heads.stride = round_up(weight.n_rows, kTileRows);
      float* raw = floats(room, n_step_rows() * heads.stride);
      multiply(weight, act, raw, heads.stride);
      heads.raw = raw;
      heads.bias = loaded(bias);
      heads.norm = {loaded(norm), nullptr, w.norm_eps, NormKind::kRms};
      heads.n_norm = norm == nullptr ? 0 : norm->n_cols;
      launch(kernel, args, {n_heads, n_step_rows()}, gpu::kHeadThreads);
    };
    args.heads.head_dim = shape.head_dim;
    turn_heads(rope, kv, w.balance, args.heads);
    args.heads.divides = true;
    args.heads.heads_per_scale = shape.n_heads / shape.n_kv_heads;
    args.q = at(q);
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
    args.x.data = at(q);
    out.set_rows(n_step_rows());
    args.out = act_of(out, needs);
    args.flag = device_->flag();
    attend(args.x, shape, kv);
    launch("quantize_rows", args, block_grid(out), gpu::kRowThreads);
  }

  void attention_shares(const float* q, const AttentionShape& shape, const KvLayerLayout& kv,
                        float* shares) override {
    if (waits_for_host()) host_->attention_shares(q, shape, kv, shares);
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
    multiply(weight, act, at(delta), stride);
  }

  void ffn_in(const ActRows& act, const FfnIn& ffn, ActNeeds needs, ActRows& out) override {
    const bool has_gate = ffn.gate != nullptr;
    const Tensor& first = has_gate ? *ffn.gate : *ffn.up;
    gpu::ActivateArgs args = {};
    args.act = ffn.act;
    args.n_cols = first.n_strips() * kTileRows;
    const int64_t n = n_step_rows() * args.n_cols;
    float* gate = floats(gpu::Room::kQueries, n);
    float* up = has_gate ? floats(gpu::Room::kKeys, n) : nullptr;
    multiply(first, act, gate, args.n_cols);
    if (has_gate) multiply(*ffn.up, act, up, args.n_cols);
    args.gate = gate;
    args.up = up;
    args.gate_bias = loaded(has_gate ? ffn.gate_bias : ffn.up_bias);
    args.up_bias = has_gate ? loaded(ffn.up_bias) : nullptr;
    args.n_bias = first.n_rows;
    out.set_rows(n_step_rows());
    args.out = act_of(out, needs);
    args.flag = device_->flag();
    launch("activate_rows", args, block_grid(out), gpu::kRowThreads);
  }

  // On the host, in the same memory.
  void moe_route(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
                 MoeRoutes& out) override {
    if (waits_for_host()) host_->moe_route(act, tensors, shape, out);
  }
  void moe_ffn(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
               const MoeRoutes& routes, MoeBuffers& buffers, float* delta,
               int64_t stride) override {
    if (!waits_for_host()) return;
    host_->moe_ffn(act, tensors, shape, routes, buffers, delta, stride);
  }
  void short_conv(const ActRows& act, const ShortConv& conv, const KvLayerLayout& kv, float* bcx,
                  ActNeeds needs, ActRows& out) override {
    out.set_rows(n_step_rows());
    if (waits_for_host()) host_->short_conv(act, conv, kv, bcx, needs, out);
  }

  void head(const ActRows& act, const Tensor& weight, float softcap, float* logits,
            int64_t stride) override {
    gpu::LogitsArgs args = {at(logits), weight.n_rows, stride, device_->flag(), softcap};
    multiply(weight, act, args.logits, stride);
    launch("finish_logits", args, {groups_of(args.n, gpu::kElementThreads), act.n_rows},
           gpu::kElementThreads);
  }

 private:
  int n_step_rows() const { return static_cast<int>(rows_.size()); }
  // The first failure of a step is what end_step() tells; after it nothing more is queued.
  void keep(const Status& status) {
    if (status_.is_ok()) status_ = status;
  }
  void fail(Code code, const std::string& what) {
    keep({code, std::string(device_->title()) + ": " + what});
  }
  // Whether the host may go on with what kernels have made.
  bool waits_for_host() {
    wait();
    return status_.is_ok();
  }
  template <class T>
  T kept(Result<T> result) {
    keep(result.status());
    return result.is_ok() ? result.take() : T{};
  }

  template <class Args>
  void launch(const std::string& kernel, const Args& args, gpu::Grid grid, int n_threads) {
    if (!status_.is_ok()) return;
    keep(device_->launch(kernel.c_str(), std::as_bytes(std::span(&args, 1)), grid, n_threads));
  }
  static std::string kernel_of(const char* prefix, const Tensor& weight) {
    return prefix + std::string(format_name(weight.format));
  }
  gpu::Grid block_grid(const ActRows& out) const {
    return {groups_of(out.n_cols_padded / kTileK, kBlocksPerGroup), n_step_rows()};
  }

  // ---- addresses of the device

  float* floats(gpu::Room room, int64_t n) {
    const auto n_bytes = static_cast<size_t>(n) * sizeof(float);
    return reinterpret_cast<float*>(kept(device_->room(room, n_bytes)));
  }
  template <class T>
  const T* send(std::span<const T> items) {
    return reinterpret_cast<const T*>(kept(device_->send(std::as_bytes(items))));
  }
  // Of what alloc() gave.
  template <class T>
  T* at(T* allocated) {
    if (allocated == nullptr) return nullptr;
    std::byte* found = device_->address(allocated);
    if (found == nullptr) fail(Code::kInvalidArgument, "memory that is not the backend's");
    return reinterpret_cast<T*>(found);
  }
  template <class T>
  const T* loaded(const T* from, int64_t n) {
    const std::byte* found = device_->loaded(from, static_cast<size_t>(n) * sizeof(T));
    if (found == nullptr) fail(Code::kInvalidArgument, "weights that were not given to load()");
    return reinterpret_cast<const T*>(found);
  }
  const float* loaded(const Tensor* vector) {
    return vector == nullptr ? nullptr : loaded(vector->as_f32(), vector->n_cols);
  }

  gpu::Matrix matrix_of(const Tensor& weight) {
    gpu::Matrix w = {};
    w.strips =
        reinterpret_cast<const uint8_t*>(loaded(weight.data, static_cast<int64_t>(weight.n_bytes)));
    w.n_tiles = weight.n_tiles();
    w.strip_bytes = static_cast<int64_t>(strip_bytes(weight.format, w.n_tiles));
    w.tiles_offset = w.strip_bytes - static_cast<int64_t>(tile_bytes(weight.format)) * w.n_tiles;
    return w;
  }
  gpu::FloatMatrix matrix_of(const FloatRows& x) { return {at(x.data), x.n_cols, x.stride}; }
  gpu::Panels panels_of(const Int8Rows& rows) {
    return {at(rows.q), at(rows.d), at(rows.bias), rows.n_blocks, rows.n_rows};
  }
  // What `needs` of the rows asks for.
  gpu::Act act_of(const ActRows& rows, ActNeeds needs) {
    gpu::Act act = {};
    if (needs.a8) act.a8 = panels_of(rows.a8);
    if (needs.a8x2) act.a8x2 = panels_of(rows.a8x2);
    if (needs.f32) act.f = at(rows.f);
    act.n_cols_padded = rows.n_cols_padded;
    return act;
  }
  gpu::NormArgs norm_of(const Norm& norm) {
    return {loaded(norm.weight), loaded(norm.bias), norm.eps, norm.kind};
  }
  gpu::ResidualArgs residual_of(const Residual& more) {
    return {at(more.delta), loaded(more.bias), norm_of(more.norm)};
  }
  void turn_heads(const RopeTable& rope, const KvLayerLayout& kv, const KeyBalance& balance,
                  gpu::HeadsArgs& heads) {
    heads.n_rope = rope.n_rope;
    heads.cos = at(rope.cos);
    heads.sin = at(rope.sin);
    heads.mixes = kv.mixes_keys;
    const int n_mixed = kv.head_dim & -kv.head_dim;
    heads.mix_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(n_mixed)));
    if (!kv.balances_keys) return;
    heads.mean = loaded(balance.mean);
    heads.scale = loaded(balance.scale);
  }

  // ---- products; y: an address of the device

  void multiply(const Tensor& weight, const ActRows& act, float* y, int64_t stride) {
    gpu::MatmulArgs args = {};
    args.w = matrix_of(weight);
    args.n_strips = weight.n_strips();
    args.y = y;
    args.stride = stride;
    switch (weight.act) {
      case Act::kA8:
        args.act = panels_of(act.a8);
        return multiply_a8(weight, args);
      case Act::kF32:
        args.f = at(act.f);
        args.f_stride = act.n_cols_padded;
        return launch(kernel_of("matmul_f32_", weight), args, {weight.n_strips(), act.n_rows},
                      gpu::kMatmulF32Threads);
      case Act::kA8x2: {
        const int64_t n = weight.n_strips() * kTileRows;
        args.act = panels_of(act.a8x2);
        args.y = floats(gpu::Room::kParts, args.act.n_rows * n);
        args.stride = n;
        multiply_a8(weight, args);
        const gpu::AddPairsArgs pairs = {args.y, n, y, stride};
        return launch("add_pairs", pairs, {groups_of(n, gpu::kElementThreads), act.n_rows},
                      gpu::kElementThreads);
      }
    }
  }
  void multiply_a8(const Tensor& weight, const gpu::MatmulArgs& args) {
    const gpu::MatmulPlan plan =
        gpu::plan_matmul(weight, args.act.n_rows, *device_, matmul_choice_);
    launch(plan.kernel, args, plan.grid, plan.n_threads);
  }

  // ---- rows and their pages

  void send_rows() {
    std::vector<gpu::Row> rows;
    sequences_.clear();
    for (const RowInput& row : rows_) {
      if (sequences_.empty() || sequences_.back().tables != row.kv.tables) {
        sequences_.push_back(row.kv);
      }
      gpu::Row& to = rows.emplace_back();
      to.token = row.token;
      to.position = row.position;
      to.slot = row.slot;
      to.n_seen = row.n_seen();
      to.n_tail = static_cast<int32_t>(row.tail.size());
      to.sequence = static_cast<int32_t>(sequences_.size()) - 1;
      std::copy(row.tail.begin(), row.tail.end(), to.tail);
    }
    device_rows_ = send(std::span<const gpu::Row>(rows));
    groups_.clear();
    row_groups_.clear();
  }

  // The page tables of a group go to the device when a step first needs them.
  gpu::Rows rows_with_pages(int group) {
    const auto number = static_cast<size_t>(group);
    if (groups_.size() <= number) groups_.resize(number + 1, nullptr);
    if (groups_[number] == nullptr) {
      std::vector<gpu::PageTable> tables;
      std::vector<gpu::Page> pages;
      for (const KvView& view : sequences_) {
        const KvTable& table = view.tables[number];
        pages.clear();
        for (int i = 0; i < table.n_pages; ++i) {
          pages.push_back({reinterpret_cast<uint8_t*>(at(table.pages[i]))});
        }
        tables.push_back({send(std::span<const gpu::Page>(pages))});
      }
      groups_[number] = send(std::span<const gpu::PageTable>(tables));
    }
    return {device_rows_, groups_[number]};
  }

  // softmax(q K^T) V to q, as many rows at a time as there is room for their segments.
  void attend(const gpu::FloatMatrix& q, const AttentionShape& shape, const KvLayerLayout& kv) {
    gpu::AttentionArgs args = {};
    args.rows = rows_with_pages(kv.group);
    args.pages = gpu::pages_of(kv);
    args.q = q.data;
    args.q_stride = q.stride;
    args.flag = device_->flag();
    args.n_heads = shape.n_heads;
    args.n_kv_heads = shape.n_kv_heads;
    args.head_dim = shape.head_dim;
    args.query_channels = kv_query_channels(shape.head_dim);
    args.scale = shape.scale;
    args.softcap = shape.softcap;
    args.window = shape.window;
    const gpu::SeenSegments seen = gpu::segments_of(rows_, shape.window, args.pages.has_first != 0);
    args.first_segment = seen.first;
    args.n_segments = seen.n;
    const gpu::AttentionPlan plan = gpu::plan_attention(rows_, shape);
    args.n_parts = plan.n_parts;
    const int64_t row_floats = int64_t{args.n_segments} * shape.n_heads * (2 + shape.head_dim);
    const auto at_once =
        static_cast<int>(std::clamp<int64_t>(kPartialFloats / row_floats, 1, n_step_rows()));
    args.partials = floats(gpu::Room::kParts, at_once * row_floats);
    for (args.row0 = 0; args.row0 < n_step_rows(); args.row0 += at_once) {
      const int n = std::min(at_once, n_step_rows() - args.row0);
      const SentGroups groups = row_groups(args.row0, n, plan.most_rows);
      args.groups = groups.device;
      launch(plan.kernel, args, {args.n_segments, shape.n_kv_heads * plan.n_parts, groups.n},
             gpu::kSegmentTokens);
      launch("merge_segments", args, {shape.n_heads, n}, gpu::kSegmentTokens);
    }
  }

  // Groups of the step's rows go to the device when a layer first needs them.
  struct SentGroups {
    int row0, n_rows, most_rows;
    const gpu::RowGroup* device;
    int64_t n;
  };
  SentGroups row_groups(int row0, int n_rows, int most_rows) {
    for (const SentGroups& sent : row_groups_) {
      if (sent.row0 == row0 && sent.n_rows == n_rows && sent.most_rows == most_rows) return sent;
    }
    const auto groups = gpu::group_rows(rows_, row0, n_rows, most_rows);
    row_groups_.push_back({row0, n_rows, most_rows, send(std::span<const gpu::RowGroup>(groups)),
                           static_cast<int64_t>(groups.size())});
    return row_groups_.back();
  }

  std::unique_ptr<Backend> host_;
  std::unique_ptr<gpu::Device> device_;
  std::vector<PageBuffer> buffers_;
  const gpu::MatmulChoice matmul_choice_ = gpu::matmul_choice();
  Status status_;
  // Of the step.
  std::span<const RowInput> rows_;
  std::vector<KvView> sequences_;
  const gpu::Row* device_rows_ = nullptr;
  std::vector<const gpu::PageTable*> groups_;  // by group; null: not sent yet
  std::vector<SentGroups> row_groups_;
};

}  // namespace

std::unique_ptr<Backend> create_gpu_backend(std::unique_ptr<gpu::Device> device,
                                            std::unique_ptr<Backend> host) {
  return std::make_unique<GpuBackend>(std::move(device), std::move(host));
}

}  // namespace edge
