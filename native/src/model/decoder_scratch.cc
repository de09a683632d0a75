#include "model/decoder_scratch.h"

#include <algorithm>

namespace edge {

void merge(ActNeeds& into, ActNeeds from) {
  into.a8 |= from.a8;
  into.f32 |= from.f32;
  into.a8x2 |= from.a8x2;
}

ActNeeds ffn_in_needs(const LayerWeights& w) {
  return needs_of({&w.ffn_gate, &w.ffn_up, &w.ffn_router, &w.ffn_gate_exps, &w.ffn_up_exps,
                   &w.ffn_gate_shexp, &w.ffn_up_shexp, &w.ffn_gate_inp_shexp});
}

namespace {

// Counts and hands out backend memory; without a backend it only counts.
struct Allocator {
  Backend* backend = nullptr;
  size_t n_bytes = 0;

  template <class T>
  Status take(int64_t n, T*& out) {
    const size_t bytes = static_cast<size_t>(round_up(n, 16)) * sizeof(T);
    n_bytes += bytes;
    if (backend == nullptr) return {};
    EDGE_ASSIGN_OR_RETURN(std::byte * memory, backend->alloc(bytes));
    out = reinterpret_cast<T*>(memory);
    return {};
  }

  Status take_act(int64_t n_cols, ActNeeds needs, ActRows& act,
                  int64_t n_rows = Decoder::kMaxRows) {
    act.set_cols(round_up(n_cols, kTileK));
    if (needs.a8) EDGE_RETURN_IF_ERROR(take_int8(n_rows, act.a8));
    if (needs.a8x2) EDGE_RETURN_IF_ERROR(take_int8(2 * n_rows, act.a8x2));
    if (needs.f32) EDGE_RETURN_IF_ERROR(take(n_rows * act.n_cols_padded, act.f));
    return {};
  }

  Status take_rope(int n_rope, RopeTable& table) {
    if (n_rope == 0) return {};
    float *cos = nullptr, *sin = nullptr;
    EDGE_RETURN_IF_ERROR(take(int64_t{Decoder::kMaxRows} * n_rope / 2, cos));
    EDGE_RETURN_IF_ERROR(take(int64_t{Decoder::kMaxRows} * n_rope / 2, sin));
    table = {cos, sin, n_rope};
    return {};
  }

  Status take_int8(int64_t n_rows, Int8Rows& rows) {
    EDGE_RETURN_IF_ERROR(take(n_rows * rows.n_blocks * 32, rows.q));
    EDGE_RETURN_IF_ERROR(take(n_rows * rows.n_blocks, rows.d));
    return take(n_rows * rows.n_blocks * 2, rows.bias);
  }
};

struct Widths {
  int64_t heads = 0, ffn = 0;
  int64_t mixed = 0;  // what a mixer computes of the normed residual before it looks back
  ActNeeds model, heads_needs, ffn_needs;
  // Of layers with experts.
  int64_t n_experts = 0, n_used = 0, d_expert = 0, d_shared = 0;
  ActNeeds expert_in, expert_hidden, shared_hidden;
};

void widen_by_experts(const LayerSpec& layer, const LayerWeights& lw, Widths& w) {
  w.n_experts = std::max(w.n_experts, int64_t{layer.n_experts});
  w.n_used = std::max(w.n_used, int64_t{layer.n_experts_used});
  w.d_expert = std::max(w.d_expert, int64_t{layer.d_expert});
  w.d_shared = std::max(w.d_shared, int64_t{layer.d_shared});
  merge(w.expert_in, needs_of({&lw.ffn_gate_exps, &lw.ffn_up_exps}));
  merge(w.expert_hidden, needs_of({&lw.ffn_down_exps}));
  merge(w.shared_hidden, needs_of({&lw.ffn_down_shexp}));
}

Widths widest(const ModelSpec& spec, const Weights& weights) {
  Widths w;
  merge(w.model, needs_of({&weights.output, &weights.fuse_embed, &weights.fuse_hidden}));
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    const LayerWeights& lw = weights.layers[l];
    const bool is_conv = spec.layers[l].mixer == Mixer::kShortConv;
    const int64_t heads = int64_t{spec.layers[l].n_heads} * spec.layers[l].head_dim;
    w.heads = std::max(w.heads, is_conv ? int64_t{spec.d_model} : heads);
    w.mixed = std::max(w.mixed, is_conv ? int64_t{3} * spec.d_model : heads);
    w.ffn = std::max(w.ffn, int64_t{spec.layers[l].d_ffn});
    merge(w.model, needs_of({&lw.attn_q, &lw.attn_k, &lw.attn_v, &lw.conv_in}));
    merge(w.model, ffn_in_needs(lw));
    merge(w.heads_needs, needs_of({&lw.attn_o, &lw.conv_out}));
    merge(w.ffn_needs, needs_of({&lw.ffn_down}));
    widen_by_experts(spec.layers[l], lw, w);
  }
  return w;
}

// Nothing without experts.
Status take_experts(Allocator& allocator, const ModelSpec& spec, const Widths& widths,
                    MoeRoutes& routes, MoeBuffers& buffers, std::vector<uint64_t*>& n_routed) {
  constexpr int64_t kRows = Decoder::kMaxRows;
  n_routed.resize(spec.layers.size());
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    if (spec.layers[l].n_experts == 0) continue;
    EDGE_RETURN_IF_ERROR(allocator.take(spec.layers[l].n_experts, n_routed[l]));
  }
  if (widths.n_experts == 0) return {};
  EDGE_RETURN_IF_ERROR(
      allocator.take(kRows * round_up(widths.n_experts, kTileRows), routes.logits));
  EDGE_RETURN_IF_ERROR(allocator.take(kRows * kTileRows, routes.shared));
  EDGE_RETURN_IF_ERROR(allocator.take(kRows * widths.n_used, routes.ids));
  EDGE_RETURN_IF_ERROR(allocator.take(kRows * widths.n_used, routes.weights));
  buffers.max_pairs = std::min(kRows * widths.n_used, Decoder::kMaxPairs);
  EDGE_RETURN_IF_ERROR(
      allocator.take_act(spec.d_model, widths.expert_in, buffers.gathered, buffers.max_pairs));
  EDGE_RETURN_IF_ERROR(
      allocator.take_act(widths.d_expert, widths.expert_hidden, buffers.hidden, buffers.max_pairs));
  return allocator.take_act(widths.d_shared, widths.shared_hidden, buffers.shared_hidden);
}

}  // namespace

Status Decoder::allocate(const ModelSpec& spec, const Weights& weights, Backend* backend,
                         Scratch& s, size_t& n_bytes) {
  Allocator allocator{.backend = backend};
  const Widths widths = widest(spec, weights);
  s.x_stride = round_up(spec.d_model, kTileRows);
  EDGE_RETURN_IF_ERROR(allocator.take(kMaxRows * s.x_stride, s.x));
  const int64_t q_stride = std::max(s.x_stride, round_up(widths.mixed, kTileRows));
  EDGE_RETURN_IF_ERROR(allocator.take(kMaxRows * q_stride, s.q));
  s.delta = s.q;
  EDGE_RETURN_IF_ERROR(allocator.take_act(spec.d_model, widths.model, s.model_act));
  EDGE_RETURN_IF_ERROR(allocator.take_act(widths.heads, widths.heads_needs, s.heads_act));
  EDGE_RETURN_IF_ERROR(allocator.take_act(widths.ffn, widths.ffn_needs, s.ffn_act));
  EDGE_RETURN_IF_ERROR(take_experts(allocator, spec, widths, s.routes, s.experts, s.n_routed));
  EDGE_RETURN_IF_ERROR(allocator.take_rope(spec.n_rope, s.rope));
  if (spec.uses_local_rope()) {
    EDGE_RETURN_IF_ERROR(allocator.take_rope(spec.n_rope, s.local_rope));
  }
  if (!spec.headless) {
    s.logits_stride = std::min(round_up(spec.n_vocab, kTileRows), Scratch::kHeadCols);
    EDGE_RETURN_IF_ERROR(allocator.take(Scratch::kHeadRows * s.logits_stride, s.logits));
    if (backend != nullptr && backend->has_top()) {
      const int64_t n_all = Scratch::kHeadRows * round_up(spec.n_vocab, kTileRows);
      EDGE_RETURN_IF_ERROR(allocator.take(n_all, s.all_logits));
      EDGE_RETURN_IF_ERROR(allocator.take(Scratch::kHeadRows, s.tops));
    }
  }
  EDGE_RETURN_IF_ERROR(allocator.take(Scratch::kHeadRows * s.model_act.n_cols_padded, s.hidden));
  n_bytes = allocator.n_bytes;
  return {};
}

Status Decoder::allocate_adapter_rows(const ModelSpec& spec, const Weights& weights,
                                      Backend* backend, Scratch& s, size_t& n_bytes) {
  Allocator allocator{.backend = backend};
  const Widths widths = widest(spec, weights);
  const auto take = [&](int64_t n_cols, const ActNeeds& needs, ActRows& act) -> Status {
    if (needs.f32 || act.f != nullptr) return {};
    return allocator.take(kMaxRows * round_up(n_cols, kTileK), act.f);
  };
  EDGE_RETURN_IF_ERROR(take(spec.d_model, widths.model, s.model_act));
  EDGE_RETURN_IF_ERROR(take(widths.heads, widths.heads_needs, s.heads_act));
  EDGE_RETURN_IF_ERROR(take(widths.ffn, widths.ffn_needs, s.ffn_act));
  n_bytes = allocator.n_bytes;
  return {};
}

}  // namespace edge
