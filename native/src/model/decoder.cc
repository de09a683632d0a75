#include "model/decoder.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "model/decoder_scratch.h"

namespace edge {

static_assert(Decoder::kMaxRows <= kKeptTokens, "a step sees no farther back than pages are kept");

namespace {

Status cancelled() { return {Code::kCancelled, "cancelled between two operations of a step"}; }

Status lacks(const Backend& backend, const char* what) {
  return {Code::kFeatureUnsupported, "the backend '" + std::string(backend.name()) + "' has no " +
                                         what + "; load the model with backend 'cpu'"};
}

const Tensor* given(const Tensor& tensor) { return tensor.data == nullptr ? nullptr : &tensor; }

KeyBalance balance_of(const LayerWeights& w) {
  return {given(w.attn_k_mean), given(w.attn_k_scale)};
}

// Whether rows of n_cols lie next to each other.
bool are_adjacent(std::span<float* const> rows, int64_t n_cols) {
  for (size_t r = 1; r < rows.size(); ++r) {
    if (rows[r] != rows[r - 1] + n_cols) return false;
  }
  return true;
}

// From rows `stride` apart to column `begin` of each of `to`, of which some may be null.
void copy_rows(Backend& backend, const float* from, int64_t stride, int64_t n_cols,
               std::span<float* const> to, int64_t begin) {
  for (float* row : to) {
    if (row != nullptr) {
      backend.fetch(from, static_cast<size_t>(n_cols) * sizeof(float), row + begin);
    }
    from += stride;
  }
}

// What a feed-forward network reads first.
const Tensor* first_of_ffn(const LayerWeights& w) {
  if (w.ffn_router.is_valid()) return &w.ffn_router;
  return w.ffn_gate.data == nullptr ? &w.ffn_up : &w.ffn_gate;
}

MoeTensors moe_tensors(const LayerSpec& layer, const LayerWeights& w) {
  MoeTensors tensors;
  tensors.router = &w.ffn_router;
  tensors.experts = {&w.ffn_gate_exps, &w.ffn_up_exps, &w.ffn_down_exps};
  if (layer.d_shared > 0) {
    tensors.shared = {&w.ffn_gate_shexp, &w.ffn_up_shexp, &w.ffn_down_shexp};
  }
  if (layer.shared_gate) tensors.shared_gate = &w.ffn_gate_inp_shexp;
  return tensors;
}

}  // namespace

Result<size_t> Decoder::adapter_scratch_bytes_of(const ModelSpec& spec, const Weights& weights,
                                                 int rank) {
  Scratch unused;
  size_t n_bytes = 0;
  EDGE_RETURN_IF_ERROR(allocate_adapter_rows(spec, weights, nullptr, unused, n_bytes));
  // A x of q, k and v.
  const auto hidden = static_cast<size_t>(3 * kMaxRows * round_up(rank, kTileK));
  return n_bytes + hidden * sizeof(float);
}

Status Decoder::prepare_adapters() {
  if (!backend_->has_adapters()) return lacks(*backend_, "adapters");
  size_t n_bytes = 0;
  return allocate_adapter_rows(*spec_, *weights_, backend_.get(), *scratch_, n_bytes);
}

Result<size_t> Decoder::scratch_bytes_of(const ModelSpec& spec, const Weights& weights) {
  Scratch unused;
  size_t n_bytes = 0;
  EDGE_RETURN_IF_ERROR(allocate(spec, weights, nullptr, unused, n_bytes));
  return n_bytes;
}

Result<std::unique_ptr<Decoder>> Decoder::create(const ModelSpec& spec, const Weights& weights,
                                                 std::unique_ptr<Backend> backend, int n_ctx,
                                                 KvFormat kv_format) {
  const bool has_experts =
      std::ranges::any_of(spec.layers, [](const LayerSpec& layer) { return layer.n_experts > 0; });
  if (has_experts && !backend->has_experts()) return lacks(*backend, "mixtures of experts");
  const bool is_recurrent = std::ranges::any_of(
      spec.layers, [](const LayerSpec& layer) { return layer.mixer == Mixer::kShortConv; });
  if (is_recurrent && !backend->has_short_conv()) return lacks(*backend, "short convolutions");
  std::unique_ptr<Decoder> decoder(new Decoder);
  decoder->spec_ = &spec;
  decoder->weights_ = &weights;
  decoder->kv_ = spec.kv_layout(kv_format);
  const bool is_long = spec.n_ctx_original > 0 && n_ctx > spec.n_ctx_original;
  decoder->inv_freq_ = is_long ? &weights.rope_inv_freq_long : &weights.rope_inv_freq;
  decoder->scratch_ = std::make_shared<Scratch>();
  EDGE_RETURN_IF_ERROR(
      allocate(spec, weights, backend.get(), *decoder->scratch_, decoder->scratch_bytes_));
  decoder->backend_ = std::move(backend);
  return decoder;
}

Status Decoder::step(std::span<const RowInput> rows, const StepOutputs& outputs,
                     const StopCheck& should_stop) {
  backend_->begin_step(rows);
  const Status status = run_step(rows, outputs, should_stop);
  if (status.is_ok()) return backend_->end_step();
  backend_->wait();  // nothing is queued any more that has the rows' pages
  return status;
}

Status Decoder::run_step(std::span<const RowInput> rows, const StepOutputs& outputs,
                         const StopCheck& should_stop) {
  Scratch& s = *scratch_;
  Backend& b = *backend_;
  const ModelSpec& spec = *spec_;
  s.adapters.set(rows);
  b.embed(weights_->token_embd, spec.embed_scale, given(weights_->position_embd),
          residual_stream());
  if (s.rope.n_rope > 0) b.rope_table(inv_freq_->as_f32(), spec.rope_factor, s.rope);
  if (s.local_rope.n_rope > 0) {
    b.rope_table(weights_->rope_inv_freq_local.as_f32(), spec.rope_local_factor, s.local_rope);
  }
  Residual more = weights_->fuse_embed.is_valid() ? fuse(rows) : Residual{};
  float* shares = outputs.shares;
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    EDGE_RETURN_IF_ERROR(spec.layers[l].mixer == Mixer::kShortConv
                             ? run_short_conv(l, should_stop, more)
                             : run_attention(l, should_stop, more, shares));
    if (shares != nullptr) shares += int64_t{spec.layers[l].n_kv_heads} * (rows.back().slot + 1);
    EDGE_RETURN_IF_ERROR(run_ffn(l, should_stop, more));
  }
  return write_outputs(more, outputs, should_stop);
}

Status Decoder::embed(std::span<const RowInput> rows, std::span<float> x) {
  const FloatRows stream = residual_stream();
  backend_->begin_step(rows);
  backend_->embed(weights_->token_embd, spec_->embed_scale, given(weights_->position_embd), stream);
  for (size_t i = 0; i < rows.size(); ++i) {
    backend_->fetch(stream.data + static_cast<int64_t>(i) * stream.stride,
                    static_cast<size_t>(stream.n_cols) * sizeof(float),
                    x.data() + static_cast<int64_t>(i) * stream.n_cols);
  }
  return backend_->end_step();
}

Status Decoder::head(std::span<const RowInput> rows, const float* x, const StepOutputs& outputs) {
  const FloatRows stream = residual_stream();
  backend_->begin_step(rows);
  backend_->wait();
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(x + static_cast<int64_t>(i) * stream.n_cols, stream.n_cols,
                stream.data + static_cast<int64_t>(i) * stream.stride);
  }
  EDGE_RETURN_IF_ERROR(write_outputs({}, outputs, {}));
  return backend_->end_step();
}

Status Decoder::turn_keys(const KvSlotRange& slots, int n_positions) {
  if (weights_->position_embd.data != nullptr) {
    return {Code::kFeatureUnsupported,
            "this model has learned positions: tokens in its KV cannot come to stand elsewhere; "
            "read the shortened text again instead"};
  }
  for (size_t l = 0; l < spec_->layers.size(); ++l) {
    const RopeUse rope = spec_->layers[l].rope;
    if (rope == RopeUse::kNone || spec_->n_rope == 0) continue;
    const Tensor& inv_freq = rope == RopeUse::kLocal ? weights_->rope_inv_freq_local : *inv_freq_;
    const KeyTurn turn{inv_freq.as_f32(), spec_->n_rope, n_positions,
                       balance_of(weights_->layers[l])};
    if (backend_->turn_keys(slots, kv_.layers[l], turn)) continue;
    return {Code::kNumeric, "a key became too large for its format when it was turned"};
  }
  return {};
}

Status Decoder::keep_slots(const KvView& view, std::span<const std::vector<int32_t>> kept) {
  size_t at = 0;
  for (size_t l = 0; l < spec_->layers.size(); ++l) {
    for (int kv_head = 0; kv_head < spec_->layers[l].n_kv_heads; ++kv_head) {
      if (backend_->keep_slots(view, kv_.layers[l], kv_head, kept[at++])) continue;
      return {Code::kNumeric, "a key or value is too large for the first 32 tokens, which are F16"};
    }
  }
  return {};
}

Residual Decoder::fuse(std::span<const RowInput> rows) {
  Scratch& s = *scratch_;
  Backend& b = *backend_;
  const Weights& w = *weights_;
  const FloatRows x = residual_stream();
  b.norm_quant({}, x, {}, norm_of(w.embed_norm), needs_of({&w.fuse_embed}), s.model_act);
  b.proj_residual(s.model_act, w.fuse_embed, {}, x.data, x.stride);
  const FloatRows hidden{s.delta, x.n_cols, x.stride};
  float* to = hidden.data;
  b.wait();
  for (const RowInput& row : rows) {
    row.hidden == nullptr ? std::fill_n(to, x.n_cols, 0.0f) : std::copy_n(row.hidden, x.n_cols, to);
    to += x.stride;
  }
  b.norm_quant({}, hidden, {}, norm_of(w.hidden_norm), needs_of({&w.fuse_hidden}), s.model_act);
  b.proj_residual(s.model_act, w.fuse_hidden, {}, s.delta, x.stride);
  return {.delta = s.delta, .bias = nullptr, .norm = {}};
}

Status Decoder::run_attention(size_t l, const StopCheck& should_stop, Residual& more,
                              float* shares) {
  Scratch& s = *scratch_;
  Backend& b = *backend_;
  const LayerSpec& layer = spec_->layers[l];
  const LayerWeights& w = weights_->layers[l];
  const AttentionShape shape = attention_shape(layer);
  ActRows heads_act = s.heads_act;
  heads_act.set_cols(round_up(int64_t{layer.n_heads} * layer.head_dim, kTileK));
  const QkvWeights qkv{.q = &w.attn_q,
                       .k = &w.attn_k,
                       .v = &w.attn_v,
                       .q_bias = given(w.attn_q_bias),
                       .k_bias = given(w.attn_k_bias),
                       .v_bias = given(w.attn_v_bias),
                       .q_norm = given(w.attn_q_norm),
                       .k_norm = given(w.attn_k_norm),
                       .norm_eps = spec_->norm_eps,
                       .balance = balance_of(w),
                       .q_lora = s.adapters.of(l, LoraRole::kAttnQ),
                       .k_lora = s.adapters.of(l, LoraRole::kAttnK),
                       .v_lora = s.adapters.of(l, LoraRole::kAttnV)};
  const LoraSpan o_lora = s.adapters.of(l, LoraRole::kAttnO);

  if (should_stop && should_stop()) return cancelled();
  b.norm_quant(more, residual_stream(), {}, norm_of(w.attn_norm),
               needs_of({&w.attn_q, &w.attn_k, &w.attn_v}, {qkv.q_lora, qkv.k_lora, qkv.v_lora}),
               s.model_act);
  b.expect({&w.attn_o});
  b.qkv_rope_store(s.model_act, qkv, shape, rope_of(layer), kv_.layers[l], s.q);
  if (should_stop && should_stop()) return cancelled();
  if (shares != nullptr) b.attention_shares(s.q, shape, kv_.layers[l], shares);
  b.attention(s.q, shape, kv_.layers[l], needs_of({&w.attn_o}, {o_lora}), heads_act);
  b.expect({first_of_ffn(w)});
  b.proj_residual(heads_act, w.attn_o, o_lora, s.delta, s.x_stride);
  more = {s.delta, given(w.attn_o_bias), norm_of(w.attn_post_norm)};
  return {};
}

Status Decoder::run_short_conv(size_t l, const StopCheck& should_stop, Residual& more) {
  Scratch& s = *scratch_;
  Backend& b = *backend_;
  const LayerWeights& w = weights_->layers[l];
  ActRows mixed_act = s.heads_act;
  mixed_act.set_cols(round_up(spec_->d_model, kTileK));
  const ShortConv conv{&w.conv_in, &w.conv_taps, spec_->layers[l].conv_kernel};

  if (should_stop && should_stop()) return cancelled();
  b.norm_quant(more, residual_stream(), {}, norm_of(w.attn_norm), needs_of({&w.conv_in}),
               s.model_act);
  b.expect({&w.conv_out});
  b.short_conv(s.model_act, conv, kv_.layers[l], s.q, needs_of({&w.conv_out}), mixed_act);
  if (should_stop && should_stop()) return cancelled();
  b.expect({first_of_ffn(w)});
  b.proj_residual(mixed_act, w.conv_out, {}, s.delta, s.x_stride);
  more = {s.delta, nullptr, norm_of(w.attn_post_norm)};
  return {};
}

Status Decoder::run_ffn(size_t l, const StopCheck& should_stop, Residual& more) {
  Scratch& s = *scratch_;
  Backend& b = *backend_;
  const LayerSpec& layer = spec_->layers[l];
  const LayerWeights& w = weights_->layers[l];
  ActRows ffn_act = s.ffn_act;
  ffn_act.set_cols(round_up(layer.d_ffn, kTileK));
  const FfnIn ffn{.gate = given(w.ffn_gate),
                  .up = &w.ffn_up,
                  .gate_bias = given(w.ffn_gate_bias),
                  .up_bias = given(w.ffn_up_bias),
                  .act = layer.ffn_act,
                  .gate_lora = s.adapters.of(l, LoraRole::kFfnGate),
                  .up_lora = s.adapters.of(l, LoraRole::kFfnUp)};
  const LoraSpan down_lora = s.adapters.of(l, LoraRole::kFfnDown);

  if (should_stop && should_stop()) return cancelled();
  ActNeeds needs = ffn_in_needs(w);
  merge(needs, needs_of({}, {ffn.gate_lora, ffn.up_lora}));
  const Residual& before = layer.parallel ? Residual{} : more;
  b.norm_quant(before, residual_stream(), {}, norm_of(w.ffn_norm), needs, s.model_act);
  if (layer.parallel) b.add_residual(more, residual_stream());
  if (layer.n_experts > 0) {
    mix_experts(l);
    more = {s.delta, nullptr, norm_of(w.ffn_post_norm)};
    return {};
  }
  b.expect({&w.ffn_down});
  b.ffn_in(s.model_act, ffn, needs_of({&w.ffn_down}, {down_lora}), ffn_act);
  if (should_stop && should_stop()) return cancelled();
  expect_layer(l + 1);
  b.proj_residual(ffn_act, w.ffn_down, down_lora, s.delta, s.x_stride);
  more = {s.delta, given(w.ffn_down_bias), norm_of(w.ffn_post_norm)};
  return {};
}

FloatRows Decoder::residual_stream() const {
  return {scratch_->x, spec_->d_model, scratch_->x_stride};
}

Norm Decoder::norm_of(const NormWeights& weights) const {
  return {spec_->norm, given(weights.weight), given(weights.bias), spec_->norm_eps};
}

AttentionShape Decoder::attention_shape(const LayerSpec& layer) const {
  const float scale = layer.attn_scale > 0 ? layer.attn_scale
                                           : 1.0f / std::sqrt(static_cast<float>(layer.head_dim));
  return {.n_heads = layer.n_heads,
          .n_kv_heads = layer.n_kv_heads,
          .head_dim = layer.head_dim,
          .scale = scale,
          .softcap = layer.attn_softcap,
          .window = layer.window};
}

const RopeTable& Decoder::rope_of(const LayerSpec& layer) const {
  if (layer.rope == RopeUse::kNone) return scratch_->no_rope;
  return layer.rope == RopeUse::kLocal ? scratch_->local_rope : scratch_->rope;
}

void Decoder::mix_experts(size_t l) {
  const LayerSpec& layer = spec_->layers[l];
  Scratch& s = *scratch_;
  const MoeTensors tensors = moe_tensors(layer, weights_->layers[l]);
  const MoeShape shape{layer.n_experts, layer.n_experts_used, layer.d_expert,
                       layer.d_shared,  layer.ffn_act,        layer.norm_topk};
  s.routes.n_routed = s.n_routed[l];
  backend_->expect({});  // nobody knows yet which experts will be read
  backend_->moe_route(s.model_act, tensors, shape, s.routes);
  expect_layer(l + 1);
  backend_->moe_ffn(s.model_act, tensors, shape, s.routes, s.experts, s.delta, s.x_stride);
}

std::span<const uint64_t> Decoder::expert_load(size_t layer) const {
  return {scratch_->n_routed[layer], static_cast<size_t>(spec_->layers[layer].n_experts)};
}

void Decoder::expect_layer(size_t layer) {
  if (layer == weights_->layers.size() && spec_->headless) return backend_->expect({});
  if (layer == weights_->layers.size()) return backend_->expect({&weights_->output});
  const LayerWeights& w = weights_->layers[layer];
  if (w.conv_in.is_valid()) return backend_->expect({&w.conv_in});
  backend_->expect({&w.attn_q, &w.attn_k, &w.attn_v});
}

Status Decoder::write_outputs(const Residual& more, const StepOutputs& outputs,
                              const StopCheck& should_stop) {
  for (size_t begin = 0; begin < outputs.rows.size(); begin += Scratch::kHeadRows) {
    if (should_stop && should_stop()) return cancelled();
    const size_t n = std::min<size_t>(outputs.rows.size() - begin, Scratch::kHeadRows);
    ActRows act = scratch_->model_act;
    ActNeeds needs = needs_of({&weights_->output});
    if (!outputs.row_hidden.empty()) {
      needs.f32 = true;
      if (act.f == nullptr) act.f = scratch_->hidden;
    }
    backend_->norm_quant(more, residual_stream(), outputs.rows.subspan(begin, n),
                         norm_of(weights_->output_norm), needs, act);
    if (!outputs.row_hidden.empty()) {
      copy_rows(*backend_, act.f, act.n_cols_padded, spec_->d_model,
                outputs.row_hidden.subspan(begin, n), 0);
    }
    const auto logits = outputs.logits.subspan(begin, n);
    const auto tops = outputs.tops.empty() ? outputs.tops : outputs.tops.subspan(begin, n);
    const bool has_tops = std::ranges::any_of(tops, [](const TopTokens* top) { return top; });
    has_tops ? write_tops(act, logits, tops) : write_logits(act, logits);
  }
  for (size_t begin = 0; begin < outputs.hidden_rows.size(); begin += Scratch::kHeadRows) {
    const size_t n = std::min<size_t>(outputs.hidden_rows.size() - begin, Scratch::kHeadRows);
    write_hidden(more, outputs.hidden_rows.subspan(begin, n), outputs.hidden.subspan(begin, n));
  }
  return {};
}

void Decoder::write_hidden(const Residual& more, std::span<const int32_t> rows,
                           std::span<float* const> hidden) {
  ActRows act = scratch_->model_act;
  const bool is_direct = backend_->shares_memory() && act.n_cols_padded == spec_->d_model &&
                         are_adjacent(hidden, spec_->d_model);
  act.f = is_direct ? hidden.front() : scratch_->hidden;
  backend_->norm_quant(more, residual_stream(), rows, norm_of(weights_->output_norm),
                       ActNeeds{.f32 = true}, act);
  if (is_direct) return;
  copy_rows(*backend_, act.f, act.n_cols_padded, spec_->d_model, hidden, 0);
}

// Rows of several sequences go through scratch, some columns after the others.
void Decoder::write_logits(const ActRows& act, std::span<float* const> logits) {
  const Scratch& s = *scratch_;
  const Tensor& output = weights_->output;
  const int64_t n_vocab = spec_->n_vocab;
  const bool is_direct = backend_->shares_memory() && n_vocab % kTileRows == 0;
  if (is_direct && are_adjacent(logits, n_vocab)) {
    expect_layer(0);  // of the next token
    return backend_->head(act, output, spec_->final_softcap, logits.front(), n_vocab);
  }
  for (int64_t begin = 0; begin < n_vocab; begin += s.logits_stride) {
    const int64_t end = std::min(begin + s.logits_stride, n_vocab);
    const Tensor next = rows_of(output, end, std::min(n_vocab - end, s.logits_stride));
    end < n_vocab ? backend_->expect({&next}) : expect_layer(0);
    backend_->head(act, rows_of(output, begin, end - begin), spec_->final_softcap, s.logits,
                   s.logits_stride);
    copy_rows(*backend_, s.logits, s.logits_stride, end - begin, logits, begin);
  }
}

// The logits of all rows stay where the backend makes them; what is wanted of them is fetched.
void Decoder::write_tops(const ActRows& act, std::span<float* const> logits,
                         std::span<TopTokens* const> tops) {
  const Scratch& s = *scratch_;
  const int64_t n_vocab = spec_->n_vocab, stride = round_up(n_vocab, kTileRows);
  expect_layer(0);
  backend_->head(act, weights_->output, spec_->final_softcap, s.all_logits, stride);
  backend_->top(s.all_logits, n_vocab, stride, act.n_rows, s.tops);
  copy_rows(*backend_, s.all_logits, stride, n_vocab, logits, 0);
  for (size_t r = 0; r < tops.size(); ++r) {
    if (tops[r] != nullptr) backend_->fetch(s.tops + r, sizeof(TopTokens), tops[r]);
  }
}

}  // namespace edge
