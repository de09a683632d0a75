#include "rig.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <random>

#include "kernels/attention.h"
#include "kernels/encode.h"
#include "kernels/kernels.h"
#include "quant/tiles.h"

namespace edge::test {
namespace {

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

std::vector<float> some_floats(std::mt19937& rng, size_t n, float low, float high) {
  std::vector<float> values(n);
  for (float& value : values) {
    value = low + (high - low) * static_cast<float>(rng() % 20001) / 20000.0f;
  }
  return values;
}

// Zero points as files may have them, which go beyond what is encoded here.
void spread_zero_points(const Tensor& t, std::byte* data, std::mt19937& rng) {
  const size_t of_strip = strip_bytes(t.format, t.n_tiles()), of_tile = tile_bytes(t.format);
  const auto n_tiles = static_cast<size_t>(t.n_tiles());
  for (size_t strip = 0; strip < static_cast<size_t>(t.n_strips()); ++strip) {
    std::byte* tiles = data + (strip + 1) * of_strip - n_tiles * of_tile;
    for (size_t tile = 0; tile < n_tiles; ++tile) {
      auto* zero = tiles + tile * of_tile + offsetof(TileL4_32, zero);
      for (int row = 0; row < kTileRows; ++row) zero[row] = static_cast<std::byte>(rng() % 256);
    }
  }
}

const Tensor* given(const Tensor& tensor) { return tensor.is_valid() ? &tensor : nullptr; }

}  // namespace

OpWeights::OpWeights(const OpShape& s, uint32_t seed) {
  const int64_t n_q = int64_t{s.n_heads} * s.head_dim, n_kv = int64_t{s.n_kv_heads} * s.head_dim;
  const auto matrix = [&](Tensor& tensor, int64_t n_rows, int64_t n_cols) {
    const Act act = s.format == Format::kF16 ? Act::kF32 : s.act;
    want(tensor, s.format, act, n_rows, n_cols, -0.3f, 0.3f);
  };
  const auto vector = [&](Tensor& tensor, int64_t n, float low, float high) {
    want(tensor, Format::kF32, Act::kA8, 1, n, low, high);
  };
  matrix(embd, s.n_vocab, s.d_model);
  matrix(q, n_q, s.d_model);
  matrix(k, n_kv, s.d_model);
  matrix(v, n_kv, s.d_model);
  matrix(o, s.d_model, n_q);
  if (s.has_gate) matrix(gate, s.d_ffn, s.d_model);
  matrix(up, s.d_ffn, s.d_model);
  matrix(down, s.d_model, s.d_ffn);
  matrix(output, s.n_vocab, s.d_model);
  if (s.n_experts > 0) {
    matrix(router, s.n_experts, s.d_model);
    matrix(gate_exps, s.n_experts * s.d_expert, s.d_model);
    matrix(up_exps, s.n_experts * s.d_expert, s.d_model);
    matrix(down_exps, s.n_experts * round_up(s.d_model, kTileRows), s.d_expert);
    matrix(gate_shexp, s.d_shared, s.d_model);
    matrix(up_shexp, s.d_shared, s.d_model);
    matrix(down_shexp, s.d_model, s.d_shared);
    if (s.shared_gate) matrix(shared_gate, 1, s.d_model);
    matrix(conv_in, 3 * s.d_model, s.d_model);
    vector(conv_taps, s.n_taps * s.d_model, -1, 1);
  }
  vector(inv_freq, std::max(1, s.n_rope / 2), 0.01f, 1.0f);
  vector(norm, s.d_model, 0.8f, 1.2f);
  if (s.norm == NormKind::kLayer) vector(norm_bias, s.d_model, -0.1f, 0.1f);
  if (!s.is_plain) {
    matrix(positions, s.n_past + s.n_rows, s.d_model);
    vector(post_norm, s.d_model, 0.8f, 1.2f);
    if (s.norm == NormKind::kLayer) vector(post_bias, s.d_model, -0.1f, 0.1f);
    vector(q_bias, n_q, -0.5f, 0.5f);
    vector(k_bias, n_kv, -0.5f, 0.5f);
    vector(v_bias, n_kv, -0.5f, 0.5f);
    vector(q_norm, s.norms_all ? n_q : s.head_dim, 0.8f, 1.2f);
    vector(k_norm, s.norms_all ? n_kv : s.head_dim, 0.8f, 1.2f);
    vector(k_mean, n_kv, -0.5f, 0.5f);
    vector(k_scale, n_kv, 0.5f, 2.0f);
    vector(o_bias, s.d_model, -0.1f, 0.1f);
    if (s.has_gate) vector(gate_bias, s.d_ffn, -0.1f, 0.1f);
    vector(up_bias, s.d_ffn, -0.1f, 0.1f);
  }
  fill(seed);
}

void OpWeights::want(Tensor& tensor, Format format, Act act, int64_t n_rows, int64_t n_cols,
                     float low, float high) {
  tensor.format = format;
  tensor.act = act;
  tensor.n_rows = n_rows;
  tensor.n_cols = n_cols;
  const auto n_bytes =
      tensor_bytes(format, static_cast<uint64_t>(n_rows), static_cast<uint64_t>(n_cols));
  tensor.n_bytes = n_bytes.value();
  wanted_.push_back({&tensor, low, high});
}

void OpWeights::fill(uint32_t seed) {
  constexpr size_t kAlignment = 64;
  size_t total = kAlignment;
  const auto padded = [](size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; };
  for (const Wanted& wanted : wanted_) total += padded(wanted.tensor->n_bytes);
  bytes_.resize(total);
  std::byte* at =
      bytes_.data() +
      (kAlignment - reinterpret_cast<uintptr_t>(bytes_.data()) % kAlignment) % kAlignment;
  std::mt19937 rng(seed);
  for (const Wanted& wanted : wanted_) {
    Tensor& t = *wanted.tensor;
    const auto values =
        some_floats(rng, static_cast<size_t>(t.n_rows * t.n_cols), wanted.low, wanted.high);
    if (t.format == Format::kF32) {
      std::memcpy(at, values.data(), t.n_bytes);
    } else {
      // It can only fail for shapes that do not fit.
      static_cast<void>(
          encode_tensor(t.format, values.data(), t.n_rows, t.n_cols, nullptr, {at, t.n_bytes}, 1));
      if (t.format == Format::kL4_32) spread_zero_points(t, at, rng);
    }
    t.data = at;
    at += padded(t.n_bytes);
  }
}

OpRig::OpRig(const OpShape& shape, const OpWeights& weights, std::unique_ptr<Backend> backend)
    : shape_(shape), weights_(weights), backend_(std::move(backend)) {}

Result<std::unique_ptr<OpRig>> OpRig::create(const OpShape& shape, const OpWeights& weights,
                                             std::unique_ptr<Backend> backend) {
  std::unique_ptr<OpRig> rig(new OpRig(shape, weights, std::move(backend)));
  EDGE_RETURN_IF_ERROR(rig->backend_->load(weights.bytes()));
  EDGE_RETURN_IF_ERROR(rig->allocate());
  EDGE_RETURN_IF_ERROR(rig->make_pages());
  rig->make_rows();
  return rig;
}

template <class T>
Status OpRig::take(int64_t n, T*& out) {
  EDGE_ASSIGN_OR_RETURN(std::byte * memory,
                        backend_->alloc(static_cast<size_t>(round_up(n, 16)) * sizeof(T)));
  out = reinterpret_cast<T*>(memory);
  return {};
}

Status OpRig::take_act(int64_t n_cols, ActRows& act, int64_t n_rows) {
  act.set_cols(round_up(n_cols, kTileK));
  act.set_rows(static_cast<int>(n_rows));
  for (Int8Rows* rows : {&act.a8, &act.a8x2}) {
    const int64_t n_blocks = rows->n_rows * rows->n_blocks;
    EDGE_RETURN_IF_ERROR(take(n_blocks * kTileK, rows->q));
    EDGE_RETURN_IF_ERROR(take(n_blocks, rows->d));
    EDGE_RETURN_IF_ERROR(take(n_blocks * 2, rows->bias));
  }
  return take(n_rows * act.n_cols_padded, act.f);
}

Status OpRig::allocate() {
  const int64_t n_rows = shape_.n_rows;
  x_stride_ = round_up(shape_.d_model, kTileRows);
  q_stride_ = round_up(int64_t{shape_.n_heads} * shape_.head_dim, kTileRows);
  logits_stride_ = round_up(shape_.n_vocab, kTileRows);
  EDGE_RETURN_IF_ERROR(take(n_rows * x_stride_, x_));
  EDGE_RETURN_IF_ERROR(take(n_rows * x_stride_, delta_));
  EDGE_RETURN_IF_ERROR(take(n_rows * q_stride_, q_));
  EDGE_RETURN_IF_ERROR(take(n_rows * logits_stride_, logits_));
  EDGE_RETURN_IF_ERROR(take(1, top_));
  EDGE_RETURN_IF_ERROR(take_act(shape_.d_model, model_act, n_rows));
  EDGE_RETURN_IF_ERROR(take_act(int64_t{shape_.n_heads} * shape_.head_dim, heads_act, n_rows));
  EDGE_RETURN_IF_ERROR(take_act(shape_.d_ffn, ffn_act, n_rows));
  float *cos = nullptr, *sin = nullptr;
  EDGE_RETURN_IF_ERROR(take(n_rows * std::max(1, shape_.n_rope / 2), cos));
  EDGE_RETURN_IF_ERROR(take(n_rows * std::max(1, shape_.n_rope / 2), sin));
  rope = {cos, sin, shape_.n_rope};
  return shape_.n_experts > 0 ? allocate_mixers() : Status();
}

Status OpRig::allocate_mixers() {
  const int64_t n_rows = shape_.n_rows;
  EDGE_RETURN_IF_ERROR(take(n_rows * round_up(shape_.n_experts, kTileRows), routes.logits));
  EDGE_RETURN_IF_ERROR(take(n_rows * kTileRows, routes.shared));
  EDGE_RETURN_IF_ERROR(take(n_rows * shape_.n_used, routes.ids));
  EDGE_RETURN_IF_ERROR(take(n_rows * shape_.n_used, routes.weights));
  EDGE_RETURN_IF_ERROR(take(shape_.n_experts, routes.n_routed));
  buffers.max_pairs = int64_t{shape_.expert_rows} * shape_.n_used;
  EDGE_RETURN_IF_ERROR(take_act(shape_.d_model, buffers.gathered, buffers.max_pairs));
  EDGE_RETURN_IF_ERROR(take_act(shape_.d_expert, buffers.hidden, buffers.max_pairs));
  EDGE_RETURN_IF_ERROR(take_act(shape_.d_shared, buffers.shared_hidden, n_rows));
  EDGE_RETURN_IF_ERROR(take(n_rows * round_up(3 * shape_.d_model, kTileRows), bcx_));
  return take_act(shape_.d_model, conv_act, n_rows);
}

Status OpRig::make_pages() {
  kv.n_kv_heads = shape_.n_kv_heads;
  kv.head_dim = shape_.head_dim;
  kv.format = shape_.kv_format;
  kv.balances_keys = kv.mixes_keys = !shape_.is_plain;
  const int n_tokens = shape_.n_past + shape_.n_rows;
  const int n_pages = (n_tokens + kPageTokens - 1) / kPageTokens;
  std::mt19937 rng(7);
  const AttentionKernels& store = *kernel_table(Isa::kScalar).attention;
  state.group = 1;
  state.state_cols = static_cast<size_t>(shape_.d_model);
  pages_.resize(static_cast<size_t>(2 * shape_.n_sequences));
  for (size_t s = 0; s < pages_.size(); s += 2) {
    std::vector<std::byte*>&pages = pages_[s], &states = pages_[s + 1];
    for (int i = 0; i < n_pages; ++i) {
      EDGE_RETURN_IF_ERROR(make_page(kv, i, pages));
      EDGE_RETURN_IF_ERROR(make_page(state, i, states));
    }
    const auto head_dim = static_cast<size_t>(shape_.head_dim);
    for (int slot = 0; slot < shape_.n_past; ++slot) {
      for (int head = 0; head < shape_.n_kv_heads; ++head) {
        const KvSlot to = kv.slot(pages[static_cast<size_t>(slot / kPageTokens)], slot, head);
        store.store_key(to, some_floats(rng, head_dim, -2, 2).data());
        store.store_value(to, some_floats(rng, head_dim, -1, 1.5f).data());
      }
    }
    for (int slot = 0; slot < shape_.n_past; ++slot) {
      std::byte* page = states[static_cast<size_t>(slot / kPageTokens)];
      const auto values = some_floats(rng, state.state_cols, -1, 1);
      std::copy(values.begin(), values.end(), state.state_row(page, slot));
    }
    tables_.push_back({pages.data(), n_pages});
    tables_.push_back({states.data(), n_pages});
  }
  return {};
}

Status OpRig::make_page(const KvLayerLayout& layer, int number, std::vector<std::byte*>& pages) {
  page_sizes_.push_back(layer.layer_bytes(number));
  EDGE_ASSIGN_OR_RETURN(PageBuffer page, backend_->page_allocator()(page_sizes_.back()));
  memory_.push_back(std::move(page));
  pages.push_back(memory_.back().data());
  return {};
}

void OpRig::make_rows() {
  // Of each its own: a row has the same values whatever the number of rows.
  std::mt19937 x_rng(3), delta_rng(4), rng(5);
  const auto x = some_floats(x_rng, static_cast<size_t>(shape_.n_rows * x_stride_), -1, 1);
  std::copy(x.begin(), x.end(), x_);
  const auto delta = some_floats(delta_rng, static_cast<size_t>(shape_.n_rows * x_stride_), -1, 1);
  std::copy(delta.begin(), delta.end(), delta_);
  const int per_sequence = shape_.n_rows / shape_.n_sequences;
  // The last row of a tree sees every second one before it.
  for (int i = 0; i < shape_.n_tail; ++i) {
    tail_.push_back(shape_.n_past + shape_.n_rows - 1 - 2 * (shape_.n_tail - 1 - i));
  }
  if (!tail_.empty()) tail_.front() = shape_.n_past;
  for (int r = 0; r < shape_.n_rows; ++r) {
    RowInput& row = rows_.emplace_back();
    row.token = static_cast<int32_t>(rng() % static_cast<uint32_t>(shape_.n_vocab));
    row.slot = row.position = shape_.n_past + r % per_sequence;
    row.kv = {&tables_[static_cast<size_t>(2 * (r / per_sequence))]};
  }
  if (!tail_.empty()) rows_.back().tail = tail_;
}

AttentionShape OpRig::attention_shape() const {
  return {.n_heads = shape_.n_heads,
          .n_kv_heads = shape_.n_kv_heads,
          .head_dim = shape_.head_dim,
          .scale = 0.3f,
          .softcap = shape_.softcap,
          .window = shape_.window};
}

Norm OpRig::norm() const { return {shape_.norm, &weights_.norm, given(weights_.norm_bias), 1e-5f}; }

Residual OpRig::residual() const {
  Residual more{.delta = delta_, .bias = given(weights_.o_bias), .norm = {}};
  more.norm = {shape_.norm, given(weights_.post_norm), given(weights_.post_bias), 1e-5f};
  return more;
}

QkvWeights OpRig::qkv() const {
  const OpWeights& w = weights_;
  return {.q = &w.q,
          .k = &w.k,
          .v = &w.v,
          .q_bias = given(w.q_bias),
          .k_bias = given(w.k_bias),
          .v_bias = given(w.v_bias),
          .q_norm = given(w.q_norm),
          .k_norm = given(w.k_norm),
          .norm_eps = 1e-6f,
          .balance = {given(w.k_mean), given(w.k_scale)}};
}

FfnIn OpRig::ffn() const {
  return {.gate = given(weights_.gate),
          .up = &weights_.up,
          .gate_bias = given(weights_.gate_bias),
          .up_bias = given(weights_.up_bias),
          .act = shape_.ffn_act};
}

MoeTensors OpRig::experts() const {
  const OpWeights& w = weights_;
  return {.router = &w.router,
          .experts = {&w.gate_exps, &w.up_exps, &w.down_exps},
          .shared = {&w.gate_shexp, &w.up_shexp, &w.down_shexp},
          .shared_gate = given(w.shared_gate)};
}

MoeShape OpRig::moe_shape() const {
  return {.n_experts = shape_.n_experts,
          .n_used = shape_.n_used,
          .d_expert = shape_.d_expert,
          .d_shared = shape_.d_shared,
          .act = shape_.ffn_act,
          .normalize = !shape_.shared_gate};
}

ShortConv OpRig::short_conv() const {
  return {.in = &weights_.conv_in, .taps = &weights_.conv_taps, .n_taps = shape_.n_taps};
}

std::string OpRig::page_bytes() const {
  std::string bytes;
  for (size_t i = 0; i < memory_.size(); ++i) {
    bytes.append(reinterpret_cast<const char*>(memory_[i].data()), page_sizes_[i]);
  }
  return bytes;
}

std::string OpRig::bytes_of(const float* x, int64_t n) {
  return {reinterpret_cast<const char*>(x), static_cast<size_t>(n) * sizeof(float)};
}

std::string OpRig::bytes_of(const ActRows& act, ActNeeds needs) {
  std::string bytes;
  const auto add = [&](const auto* data, int64_t n) {
    bytes.append(reinterpret_cast<const char*>(data), static_cast<size_t>(n) * sizeof *data);
  };
  const auto add_rows = [&](const Int8Rows& rows) {
    const int64_t n = rows.n_rows * rows.n_blocks;
    add(rows.q, n * kTileK);
    add(rows.d, n);
    add(rows.bias, 2 * n);
  };
  if (needs.a8) add_rows(act.a8);
  if (needs.a8x2) add_rows(act.a8x2);
  if (needs.f32) add(act.f, act.n_rows * act.n_cols_padded);
  return bytes;
}

}  // namespace edge::test
