#include "backends/cpu/cpu_backend.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <vector>

#include "backends/cpu/act_rows.h"
#include "backends/cpu/activate.h"
#include "backends/cpu/attention_driver.h"
#include "backends/cpu/kv_editor.h"
#include "backends/cpu/lora_driver.h"
#include "backends/cpu/matmul_driver.h"
#include "backends/cpu/moe_driver.h"
#include "backends/cpu/stored_keys.h"
#include "backends/cpu/thread_scratch.h"
#include "base/os.h"
#include "base/thread_pool.h"
#include "kernels/elementwise.h"
#include "quant/decode.h"

namespace edge {

namespace {

constexpr int64_t kQuantBlock = 32;
constexpr size_t kMostTaps = 16;  // of a short convolution, as model/spec.cc allows

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

class CpuBackend final : public Backend {
 public:
  CpuBackend(const KernelTable& kernels, int n_threads)
      : kernels_(kernels),
        ops_(*kernels.elementwise),
        attention_(*kernels.attention, n_threads),
        matmul_(kernels, n_threads),
        moe_(kernels, matmul_, n_threads),
        lora_(ops_, matmul_, n_threads),
        kv_editor_(kernels, n_threads),
        n_threads_(n_threads),
        scratch_(n_threads) {}

  const char* name() const override { return "cpu"; }

  Result<std::byte*> alloc(size_t n_bytes) override {
    EDGE_ASSIGN_OR_RETURN(PageBuffer buffer, PageBuffer::allocate(n_bytes));
    buffers_.push_back(std::move(buffer));
    return buffers_.back().data();
  }

  void begin_step(std::span<const RowInput> rows) override {
    rows_ = rows;
    non_finite_.store(false, std::memory_order_relaxed);
  }

  Status end_step() override {
    if (!non_finite_.load(std::memory_order_relaxed)) return {};
    return {
        Code::kNumeric,
        "an activation became infinite or NaN; the weights are broken or the format too narrow"};
  }

  void expect(std::initializer_list<const Tensor*> weights) override {
    matmul_.expect(weights, n_step_rows());
  }

  void embed(const Tensor& table, float scale, const Tensor* positions,
             const FloatRows& x) override {
    if (positions != nullptr) scratch_.reserve(x.n_cols);
    for_rows([&](int r, int thread) {
      float* row = x.data + r * x.stride;
      decode_rows(table, rows_[index(r)].token, 1, row);
      if (scale != 1) {
        for (int64_t i = 0; i < x.n_cols; ++i) row[i] *= scale;
      }
      if (positions == nullptr) return;
      float* position = scratch_.get(thread);
      decode_rows(*positions, rows_[index(r)].position, 1, position);
      ops_.add(position, row, x.n_cols);
    });
  }

  void rope_table(const float* inv_freq, float factor, RopeTable& out) override {
    const int half = out.n_rope / 2;
    float* cos = const_cast<float*>(out.cos);
    float* sin = const_cast<float*>(out.sin);
    for_rows([&](int r, int) {
      ops_.rope_angles(inv_freq, half, rows_[index(r)].position, factor, cos + r * half,
                       sin + r * half);
    });
  }

  void norm_quant(const Residual& more, const FloatRows& x, std::span<const int32_t> pick,
                  const Norm& norm, ActNeeds needs, ActRows& out) override {
    const int n_rows = pick.empty() ? n_step_rows() : static_cast<int>(pick.size());
    const bool in_one_pass =
        needs == ActNeeds{.a8 = true} && norm.kind == NormKind::kRms && norm.weight != nullptr;
    const bool is_plain = more.bias == nullptr && more.norm.weight == nullptr;
    if (!in_one_pass || !is_plain) scratch_.reserve(2 * out.n_cols_padded);
    out.set_rows(n_rows);
    for_n_rows(n_rows, [&](int r, int thread) {
      const int64_t at = (pick.empty() ? r : pick[index(r)]) * x.stride;
      if (in_one_pass) {
        if (!is_plain) add_residual_row(more, at, x, scratch_.get(thread));
        const float* delta = is_plain && more.delta != nullptr ? more.delta + at : nullptr;
        norm_int8(delta, x.data + at, *norm.weight, norm.eps, r, out);
        return;
      }
      float* y = scratch_.get(thread);
      add_residual_row(more, at, x, y);
      if (needs.f32) y = out.f + r * out.n_cols_padded;
      normalize(norm, x.data + at, x.n_cols, y);
      finish_act(y, out.n_cols_padded, r, 0, needs, out);
    });
  }

  void add_residual(const Residual& more, const FloatRows& x) override {
    scratch_.reserve(2 * round_up(x.n_cols, kQuantBlock));
    for_rows(
        [&](int r, int thread) { add_residual_row(more, r * x.stride, x, scratch_.get(thread)); });
  }

  void qkv_rope_store(const ActRows& act, const QkvWeights& w, const AttentionShape& shape,
                      const RopeTable& rope, const KvLayerLayout& kv, float* q) override {
    const int64_t q_stride = round_up(w.q->n_rows, kTileRows);
    const int64_t kv_stride = round_up(w.k->n_rows, kTileRows);
    const size_t n_kv = static_cast<size_t>(n_step_rows() * kv_stride);
    if (keys_.size() < n_kv) keys_.resize(n_kv);
    if (values_.size() < n_kv) values_.resize(n_kv);
    if (w.q_norm != nullptr) scratch_.reserve(round_up(q_stride, kQuantBlock));
    matmul_.run(
        {{w.q, q, q_stride}, {w.k, keys_.data(), kv_stride}, {w.v, values_.data(), kv_stride}},
        act);
    lora_.add({{w.q_lora, q, q_stride},
               {w.k_lora, keys_.data(), kv_stride},
               {w.v_lora, values_.data(), kv_stride}},
              act);
    const StoredKeys stored(kv, w.balance);
    for_rows([&](int r, int thread) {
      float* query = q + r * q_stride;
      float* key = keys_.data() + r * kv_stride;
      float* value = values_.data() + r * kv_stride;
      add_bias(w.q_bias, query);
      add_bias(w.k_bias, key);
      add_bias(w.v_bias, value);
      norm_heads(w.q_norm, w.norm_eps, w.q->n_rows, query, scratch_.get(thread));
      norm_heads(w.k_norm, w.norm_eps, w.k->n_rows, key, scratch_.get(thread));
      rotate_heads(query, shape.n_heads, shape.head_dim, rope, r);
      rotate_heads(key, shape.n_kv_heads, shape.head_dim, rope, r);
      stored.meet(query, shape.n_heads);
      for (int h = 0; h < kv.n_kv_heads; ++h) stored.enter(h, key + h * kv.head_dim);
      store_kv(r, key, value, kv);
    });
  }

  void attention(float* q, const AttentionShape& shape, const KvLayerLayout& kv, ActNeeds needs,
                 ActRows& out) override {
    if (!attention_.run(rows_, q, shape, kv, matmul_.expected())) {
      non_finite_.store(true, std::memory_order_relaxed);
    }
    const int64_t n_cols = int64_t{shape.n_heads} * shape.head_dim;
    const int64_t q_stride = round_up(n_cols, kTileRows);
    scratch_.reserve(out.n_cols_padded);
    out.set_rows(n_step_rows());
    for_rows([&](int r, int thread) {
      float* y = needs.f32 ? out.f + r * out.n_cols_padded : scratch_.get(thread);
      std::copy_n(q + r * q_stride, n_cols, y);
      std::fill(y + n_cols, y + out.n_cols_padded, 0.0f);
      finish_act(y, out.n_cols_padded, r, 0, needs, out);
    });
  }

  void attention_shares(const float* q, const AttentionShape& shape, const KvLayerLayout& kv,
                        float* shares) override {
    kv_editor_.attention_shares(rows_, q, shape, kv, shares);
  }

  bool turn_keys(const KvSlotRange& slots, const KvLayerLayout& kv, const KeyTurn& turn) override {
    return kv_editor_.turn_keys(slots, kv, turn);
  }

  bool keep_slots(const KvView& view, const KvLayerLayout& kv, int kv_head,
                  std::span<const int32_t> kept) override {
    return kv_editor_.keep_slots(view, kv, kv_head, kept);
  }

  bool has_short_conv() const override { return true; }

  void short_conv(const ActRows& act, const ShortConv& conv, const KvLayerLayout& kv, float* bcx,
                  ActNeeds needs, ActRows& out) override {
    const auto n_cols = static_cast<int64_t>(kv.state_cols);
    const int64_t stride = round_up(conv.in->n_rows, kTileRows);
    matmul_.run({{conv.in, bcx, stride}}, act);
    for_rows([&](int r, int) {
      const RowInput& row = rows_[index(r)];
      const float* b = bcx + r * stride;
      const float* x = b + 2 * n_cols;
      float* to = state_row(row, kv, row.slot);
      for (int64_t i = 0; i < n_cols; ++i) to[i] = b[i] * x[i];
    });
    scratch_.reserve(out.n_cols_padded);
    out.set_rows(n_step_rows());
    for_rows([&](int r, int thread) {
      float* y = needs.f32 ? out.f + r * out.n_cols_padded : scratch_.get(thread);
      convolve(rows_[index(r)], conv, kv, bcx + r * stride + n_cols, y);
      std::fill(y + n_cols, y + out.n_cols_padded, 0.0f);
      finish_act(y, out.n_cols_padded, r, 0, needs, out);
    });
  }

  void proj_residual(const ActRows& act, const Tensor& weight, LoraSpan lora, float* delta,
                     int64_t stride) override {
    matmul_.run({{&weight, delta, stride}}, act);
    lora_.add({{lora, delta, stride}}, act);
  }

  void ffn_in(const ActRows& act, const FfnIn& ffn, ActNeeds needs, ActRows& out) override {
    const Tensor& first = ffn.gate != nullptr ? *ffn.gate : *ffn.up;
    const int64_t step = matmul_.unit_strips(first, act.n_rows);  // whole quantization blocks
    const int64_t n_strips_padded = out.n_cols_padded / kTileRows;
    const int64_t n_units = (n_strips_padded + step - 1) / step;
    const int n_rows = n_step_rows();
    const int64_t part = n_rows * step * kTileRows;
    out.set_rows(n_rows);
    scratch_.reserve(2 * part);
    const LoraSpan first_lora = ffn.gate != nullptr ? ffn.gate_lora : ffn.up_lora;
    const LoraSpan second_lora = ffn.gate != nullptr ? ffn.up_lora : LoraSpan{};
    const bool has_lora = !first_lora.empty() || !second_lora.empty();
    if (has_lora) lora_.project({first_lora, second_lora}, act, step);
    const auto run_unit = [&](int64_t unit, int thread) {
      const int64_t strip0 = unit * step;
      const int64_t n_padded = std::min(step, n_strips_padded - strip0);
      const int64_t n_strips = std::min(n_padded, first.n_strips() - strip0);
      const int64_t width = n_padded * kTileRows;
      const int64_t n = n_strips * kTileRows;
      const int64_t column0 = strip0 * kTileRows;
      float* g = scratch_.get(thread);
      float* u = ffn.gate != nullptr ? g + part : nullptr;
      matmul_.run_strips(first, act, strip0, n_strips, g, width);
      if (u != nullptr) matmul_.run_strips(*ffn.up, act, strip0, n_strips, u, width);
      if (has_lora) {
        lora_.add_strips(0, strip0, n_strips, g, width, thread);
        if (u != nullptr) lora_.add_strips(1, strip0, n_strips, u, width, thread);
      }
      for (int r = 0; r < n_rows; ++r) {
        float* gate = g + r * width;
        float* up = u == nullptr ? nullptr : u + r * width;
        float* y = needs.f32 ? out.f + r * out.n_cols_padded + column0 : gate;
        add_bias_part(up == nullptr ? ffn.up_bias : ffn.gate_bias, column0, n, gate);
        if (up != nullptr) add_bias_part(ffn.up_bias, column0, n, up);
        activate_row(kernels_, ffn.act, gate, up, n, y);
        std::fill(y + n, y + width, 0.0f);
        finish_act(y, width, r, column0, needs, out);
      }
    };
    parallel_for(n_threads_, n_units, run_unit, matmul_.expected());
  }

  void moe_route(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
                 MoeRoutes& out) override {
    if (!moe_.route(act, tensors, shape, out)) {
      non_finite_.store(true, std::memory_order_relaxed);
    }
  }

  void moe_ffn(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
               const MoeRoutes& routes, MoeBuffers& buffers, float* delta,
               int64_t stride) override {
    if (!moe_.run(act, tensors, shape, routes, buffers, delta, stride)) {
      non_finite_.store(true, std::memory_order_relaxed);
    }
  }

  void head(const ActRows& act, const Tensor& weight, float softcap, float* logits,
            int64_t stride) override {
    matmul_.run({{&weight, logits, stride}}, act);
    for_n_rows(act.n_rows, [&](int r, int) {
      if (!ops_.is_finite_row(logits + r * stride, weight.n_rows)) {
        non_finite_.store(true, std::memory_order_relaxed);
      }
      if (softcap > 0) kernels_.variants->softcap(logits + r * stride, weight.n_rows, softcap);
    });
  }

 private:
  static size_t index(int r) { return static_cast<size_t>(r); }
  int n_step_rows() const { return static_cast<int>(rows_.size()); }

  template <class F>
  void for_n_rows(int n_rows, F&& body) {
    parallel_for(n_threads_, n_rows,
                 [&](int64_t r, int thread) { body(static_cast<int>(r), thread); });
  }
  template <class F>
  void for_rows(F&& body) {
    for_n_rows(n_step_rows(), body);
  }

  void norm_int8(const float* delta, float* x, const Tensor& weight, float eps, int r,
                 ActRows& out) {
    const Int8Rows& rows = out.a8;
    const int64_t at = rows.block_index(r, 0);
    const bool finite = ops_.add_norm_quantize_row(
        delta, x, weight.as_f32(), eps, weight.n_cols, rows.panel_rows(r / kPanelRows),
        rows.q + kQuantBlock * at, rows.d + at, rows.bias + 2 * at);
    if (!finite) non_finite_.store(true, std::memory_order_relaxed);
  }

  // y [n rounded up to 32, the padding zero] = norm(x).
  void normalize(const Norm& norm, const float* x, int64_t n, float* y) {
    if (norm.weight == nullptr) {
      std::copy_n(x, n, y);
      std::fill(y + n, y + round_up(n, kQuantBlock), 0.0f);
    } else if (norm.kind == NormKind::kRms) {
      ops_.rmsnorm(x, norm.weight->as_f32(), norm.eps, n, y);
    } else {
      kernels_.variants->layernorm(x, norm.weight->as_f32(), norm.bias->as_f32(), norm.eps, n, y);
    }
  }

  // The row of x that begins at element `at`; scratch holds two rows padded to 32.
  void add_residual_row(const Residual& more, int64_t at, const FloatRows& x, float* scratch) {
    if (more.delta == nullptr) return;
    const float* y = more.delta + at;
    if (more.bias != nullptr) {
      std::copy_n(y, x.n_cols, scratch);
      ops_.add(more.bias->as_f32(), scratch, x.n_cols);
      y = scratch;
    }
    if (more.norm.weight != nullptr) {
      float* normed = scratch + round_up(x.n_cols, kQuantBlock);
      normalize(more.norm, y, x.n_cols, normed);
      y = normed;
    }
    ops_.add(y, x.data + at, x.n_cols);
  }

  void add_bias(const Tensor* bias, float* row) {
    if (bias != nullptr) ops_.add(bias->as_f32(), row, bias->n_cols);
  }

  // Columns [column0, column0 + n) of a row, of which those past the bias are padding.
  void add_bias_part(const Tensor* bias, int64_t column0, int64_t n, float* row) {
    if (bias == nullptr) return;
    ops_.add(bias->as_f32() + column0, row, std::min(n, bias->n_cols - column0));
  }

  // In place, in parts as long as the weight; scratch holds one padded to 32.
  void norm_heads(const Tensor* weight, float eps, int64_t n, float* heads, float* scratch) {
    if (weight == nullptr) return;
    const int64_t n_part = weight->n_cols;
    for (int64_t at = 0; at < n; at += n_part) {
      ops_.rmsnorm(heads + at, weight->as_f32(), eps, n_part, scratch);
      std::copy_n(scratch, n_part, heads + at);
    }
  }

  // Columns [column0, column0 + n) of row r of `out` from y; n is a multiple of 32.
  void finish_act(const float* y, int64_t n, int r, int64_t column0, ActNeeds needs, ActRows& out) {
    const bool finite = write_act(ops_, y, n, r, column0, needs, out);
    if (!finite) non_finite_.store(true, std::memory_order_relaxed);
  }

  void rotate_heads(float* heads, int n_heads, int head_dim, const RopeTable& rope, int r) {
    const int half = rope.n_rope / 2;
    for (int h = 0; h < n_heads; ++h) {
      ops_.rope_row(heads + h * head_dim, rope.cos + r * half, rope.sin + r * half, rope.n_rope);
    }
  }

  static float* state_row(const RowInput& row, const KvLayerLayout& kv, int slot) {
    return kv.state_row(row.kv.tables[kv.group].pages[slot / kPageTokens], slot);
  }

  void convolve(const RowInput& row, const ShortConv& conv, const KvLayerLayout& kv,
                const float* gate, float* y) {
    std::array<const float*, kMostTaps> rows;
    const int n_taps = std::min(conv.n_taps, row.n_seen());
    for (int t = 0; t < n_taps; ++t) {
      rows[index(t)] = state_row(row, kv, row.seen_slot(row.n_seen() - n_taps + t));
    }
    const auto n_cols = static_cast<int64_t>(kv.state_cols);
    const float* taps = conv.taps->as_f32() + (conv.n_taps - n_taps) * n_cols;
    ops_.gated_taps(gate, taps, rows.data(), n_taps, n_cols, y);
  }

  void store_kv(int r, const float* keys, const float* values, const KvLayerLayout& kv) {
    const RowInput& row = rows_[index(r)];
    std::byte* page = row.kv.tables[kv.group].pages[row.slot / kPageTokens];
    bool is_finite = true;
    for (int h = 0; h < kv.n_kv_heads; ++h) {
      const KvSlot slot = kv.slot(page, row.slot, h);
      is_finite &= kernels_.attention->store_key(slot, keys + h * kv.head_dim);
      is_finite &= kernels_.attention->store_value(slot, values + h * kv.head_dim);
    }
    if (!is_finite) non_finite_.store(true, std::memory_order_relaxed);
  }

  const KernelTable& kernels_;
  const ElementwiseKernels& ops_;
  AttentionDriver attention_;
  MatmulDriver matmul_;
  MoeDriver moe_;
  LoraDriver lora_;
  KvEditor kv_editor_;
  int n_threads_;
  ThreadScratch scratch_;
  std::vector<PageBuffer> buffers_;
  std::vector<float> keys_, values_;
  std::span<const RowInput> rows_;
  std::atomic<bool> non_finite_{false};
};

}  // namespace

std::unique_ptr<Backend> create_cpu_backend(const KernelTable& kernels, int n_threads) {
  return std::make_unique<CpuBackend>(kernels, n_threads);
}

}  // namespace edge
