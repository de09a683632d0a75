#include "backends/cpu/cpu_backend.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "backends/cpu/act_rows.h"
#include "backends/cpu/attention_driver.h"
#include "backends/cpu/matmul_driver.h"
#include "backends/cpu/moe_driver.h"
#include "backends/cpu/thread_scratch.h"
#include "base/os.h"
#include "base/thread_pool.h"
#include "kernels/elementwise.h"
#include "quant/decode.h"

namespace edge {

namespace {

constexpr int64_t kQuantBlock = 32;

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

class CpuBackend final : public Backend {
 public:
  CpuBackend(const KernelTable& kernels, int n_threads)
      : kernels_(kernels),
        ops_(*kernels.elementwise),
        attention_(*kernels.attention, n_threads),
        matmul_(kernels, n_threads),
        moe_(ops_, matmul_, n_threads),
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

  void embed(const Tensor& table, float* x, int64_t stride) override {
    for_rows([&](int r, int) { decode_rows(table, rows_[index(r)].token, 1, x + r * stride); });
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

  void norm_quant(const float* delta, float* x, int64_t stride, std::span<const int32_t> pick,
                  const Tensor& weight, float eps, ActNeeds needs, ActRows& out) override {
    const int n_rows = pick.empty() ? n_step_rows() : static_cast<int>(pick.size());
    const bool only_a8 = needs == ActNeeds{.a8 = true};
    if (!only_a8) scratch_.reserve(out.n_cols_padded);
    out.set_rows(n_rows);
    for_n_rows(n_rows, [&](int r, int thread) {
      const int64_t from = (pick.empty() ? r : pick[index(r)]) * stride;
      const float* more = delta == nullptr ? nullptr : delta + from;
      if (only_a8) {
        norm_int8(more, x + from, weight, eps, r, out);
        return;
      }
      if (more != nullptr) ops_.add(more, x + from, weight.n_cols);
      float* y = needs.f32 ? out.f + r * out.n_cols_padded : scratch_.get(thread);
      ops_.rmsnorm(x + from, weight.as_f32(), eps, weight.n_cols, y);
      finish_act(y, out.n_cols_padded, r, 0, needs, out);
    });
  }

  void qkv_rope_store(const ActRows& act, const Tensor& wq, const Tensor& wk, const Tensor& wv,
                      const AttentionShape& shape, const RopeTable& rope, const KvLayerLayout& kv,
                      float* q) override {
    const int64_t q_stride = round_up(wq.n_rows, kTileRows);
    const int64_t kv_stride = round_up(wk.n_rows, kTileRows);
    const size_t n_kv = static_cast<size_t>(n_step_rows() * kv_stride);
    if (keys_.size() < n_kv) keys_.resize(n_kv);
    if (values_.size() < n_kv) values_.resize(n_kv);
    matmul_.run(
        {{&wq, q, q_stride}, {&wk, keys_.data(), kv_stride}, {&wv, values_.data(), kv_stride}},
        act);
    for_rows([&](int r, int) {
      rotate_heads(q + r * q_stride, shape.n_heads, shape.head_dim, rope, r);
      rotate_heads(keys_.data() + r * kv_stride, shape.n_kv_heads, shape.head_dim, rope, r);
      store_kv(r, keys_.data() + r * kv_stride, values_.data() + r * kv_stride, kv);
    });
  }

  void attention(float* q, const AttentionShape& shape, const KvLayerLayout& kv, ActNeeds needs,
                 ActRows& out) override {
    attention_.run(rows_, q, shape, kv, matmul_.expected());
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

  void proj_residual(const ActRows& act, const Tensor& weight, float* delta,
                     int64_t stride) override {
    matmul_.run({{&weight, delta, stride}}, act);
  }

  void ffn_in(const ActRows& act, const Tensor& gate, const Tensor& up, ActNeeds needs,
              ActRows& out) override {
    const int64_t step = matmul_.unit_strips(gate, act.n_rows);  // whole quantization blocks
    const int64_t n_strips_padded = out.n_cols_padded / kTileRows;
    const int64_t n_units = (n_strips_padded + step - 1) / step;
    const int n_rows = n_step_rows();
    const int64_t part = n_rows * step * kTileRows;
    out.set_rows(n_rows);
    scratch_.reserve(2 * part);
    const auto run_unit = [&](int64_t unit, int thread) {
      const int64_t strip0 = unit * step;
      const int64_t n_padded = std::min(step, n_strips_padded - strip0);
      const int64_t n_strips = std::min(n_padded, gate.n_strips() - strip0);
      const int64_t width = n_padded * kTileRows;
      float* g = scratch_.get(thread);
      float* u = g + part;
      matmul_.run_strips(gate, act, strip0, n_strips, g, width);
      matmul_.run_strips(up, act, strip0, n_strips, u, width);
      for (int r = 0; r < n_rows; ++r) {
        const int64_t column0 = strip0 * kTileRows;
        float* y = needs.f32 ? out.f + r * out.n_cols_padded + column0 : g + r * width;
        ops_.swiglu(g + r * width, u + r * width, n_strips * kTileRows, y);
        std::fill(y + n_strips * kTileRows, y + width, 0.0f);
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

  void head(const ActRows& act, const Tensor& weight, float* logits, int64_t stride) override {
    matmul_.run({{&weight, logits, stride}}, act);
    for_n_rows(act.n_rows, [&](int r, int) {
      if (!ops_.is_finite_row(logits + r * stride, weight.n_rows)) {
        non_finite_.store(true, std::memory_order_relaxed);
      }
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

  void store_kv(int r, const float* keys, const float* values, const KvLayerLayout& kv) {
    const RowInput& row = rows_[index(r)];
    std::byte* page = row.kv.pages[row.position / kPageTokens];
    const int slot = row.position % kPageTokens;
    for (int h = 0; h < kv.n_kv_heads; ++h) {
      auto* k = reinterpret_cast<uint16_t*>(page + kv.key_offset(h));
      auto* v = reinterpret_cast<uint16_t*>(page + kv.value_offset(h));
      ops_.store_f16_column(keys + h * kv.head_dim, kv.head_dim, kPageTokens, k + slot);
      ops_.store_f16_row(values + h * kv.head_dim, kv.head_dim, v + slot * kv.head_dim);
    }
  }

  const KernelTable& kernels_;
  const ElementwiseKernels& ops_;
  AttentionDriver attention_;
  MatmulDriver matmul_;
  MoeDriver moe_;
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
