#include "model/weights.h"

#include <string>
#include <unordered_set>

namespace edge {

namespace {

// Looks tensors up by name and remembers which ones the model has claimed.
class Binder {
 public:
  explicit Binder(const EdgeFile& file) : file_(file) {}

  Status matrix(const std::string& prefix, std::string_view role, int64_t n_rows, int64_t n_cols,
                Tensor& out) {
    EDGE_ASSIGN_OR_RETURN(const TensorEntry* entry, find(prefix, role));
    const Tensor& tensor = entry->tensor;
    if (tile_bytes(tensor.format) == 0) return wrong_format(*entry, "a tiled format");
    if (tensor.format == Format::kF16 && tensor.act != Act::kF32) {
      return {Code::kTensorAct, "tensor '" + entry->name +
                                    "': F16 weights take f32 activations, the file asks for " +
                                    std::string(act_name(tensor.act))};
    }
    EDGE_RETURN_IF_ERROR(check_shape(*entry, n_rows, n_cols));
    out = tensor;
    return {};
  }

  // F16 alone: what decides is not rounded to less.
  Status half_matrix(const std::string& prefix, std::string_view role, int64_t n_rows,
                     int64_t n_cols, Tensor& out) {
    EDGE_ASSIGN_OR_RETURN(const TensorEntry* entry, find(prefix, role));
    if (entry->tensor.format != Format::kF16) return wrong_format(*entry, "F16");
    return matrix(prefix, role, n_rows, n_cols, out);
  }

  Status vector(const std::string& prefix, std::string_view role, int64_t n, Tensor& out) {
    EDGE_ASSIGN_OR_RETURN(const TensorEntry* entry, find(prefix, role));
    if (entry->tensor.format != Format::kF32) return wrong_format(*entry, "F32");
    EDGE_RETURN_IF_ERROR(check_shape(*entry, 1, n));
    out = entry->tensor;
    return {};
  }

  // Blobs (U8) are not the model's; every other tensor must have been claimed.
  Status check_nothing_left() const {
    for (const TensorEntry& entry : file_.tensors()) {
      if (entry.tensor.format == Format::kU8 || claimed_.contains(&entry)) continue;
      return {Code::kTensorUnexpected,
              "tensor '" + entry.name + "': the model spec has no place for it"};
    }
    return {};
  }

 private:
  Result<const TensorEntry*> find(const std::string& prefix, std::string_view role) {
    const std::string name = prefix + std::string(role);
    const TensorEntry* entry = file_.find(name);
    if (entry == nullptr) {
      return Status(Code::kTensorMissing, "tensor '" + name + "': the model spec asks for it");
    }
    if (entry->role != role) {
      return Status(Code::kTensorRole, "tensor '" + name + "': role is '" + entry->role +
                                           "', expected '" + std::string(role) + "'");
    }
    claimed_.insert(entry);
    return entry;
  }

  static Status wrong_format(const TensorEntry& entry, const std::string& expected) {
    return {Code::kTensorFormat, "tensor '" + entry.name + "': format is " +
                                     std::string(format_name(entry.tensor.format)) + ", expected " +
                                     expected};
  }

  static Status check_shape(const TensorEntry& entry, int64_t n_rows, int64_t n_cols) {
    const Tensor& tensor = entry.tensor;
    if (tensor.n_rows != n_rows || tensor.n_cols != n_cols) {
      return {Code::kTensorShape, "tensor '" + entry.name + "': shape is " +
                                      shape_text(tensor.n_rows, tensor.n_cols) +
                                      ", the model spec asks for " + shape_text(n_rows, n_cols)};
    }
    const auto n_bytes =
        tensor_bytes(tensor.format, static_cast<uint64_t>(n_rows), static_cast<uint64_t>(n_cols));
    if (!n_bytes || tensor.data == nullptr || tensor.n_bytes < *n_bytes) {
      return {Code::kTensorShape, "tensor '" + entry.name + "': " + std::to_string(tensor.n_bytes) +
                                      " bytes do not hold " + shape_text(n_rows, n_cols)};
    }
    return {};
  }

  static std::string shape_text(int64_t n_rows, int64_t n_cols) {
    std::string text = "[";
    text.append(std::to_string(n_rows)).append(", ").append(std::to_string(n_cols)).append("]");
    return text;
  }

  const EdgeFile& file_;
  std::unordered_set<const TensorEntry*> claimed_;
};

Status bind_norm(Binder& binder, const ModelSpec& spec, const std::string& prefix,
                 const std::string& role, NormWeights& out) {
  EDGE_RETURN_IF_ERROR(binder.vector(prefix, role, spec.d_model, out.weight));
  if (spec.norm == NormKind::kRms) return {};
  return binder.vector(prefix, role + "_bias", spec.d_model, out.bias);
}

Status bind_short_conv(Binder& binder, const ModelSpec& spec, const LayerSpec& layer,
                       const std::string& prefix, LayerWeights& out) {
  const int64_t d_model = spec.d_model;
  EDGE_RETURN_IF_ERROR(binder.matrix(prefix, "conv_in", 3 * d_model, d_model, out.conv_in));
  EDGE_RETURN_IF_ERROR(
      binder.vector(prefix, "conv_taps", layer.conv_kernel * d_model, out.conv_taps));
  return binder.matrix(prefix, "conv_out", d_model, d_model, out.conv_out);
}

Status bind_attention(Binder& binder, const ModelSpec& spec, const LayerSpec& layer,
                      const std::string& prefix, LayerWeights& out) {
  const int64_t d_model = spec.d_model;
  const int64_t d_q = int64_t{layer.n_heads} * layer.head_dim;
  const int64_t d_kv = int64_t{layer.n_kv_heads} * layer.head_dim;
  EDGE_RETURN_IF_ERROR(binder.matrix(prefix, "attn_q", d_q, d_model, out.attn_q));
  EDGE_RETURN_IF_ERROR(binder.matrix(prefix, "attn_k", d_kv, d_model, out.attn_k));
  EDGE_RETURN_IF_ERROR(binder.matrix(prefix, "attn_v", d_kv, d_model, out.attn_v));
  if (layer.qkv_bias) {
    EDGE_RETURN_IF_ERROR(binder.vector(prefix, "attn_q_bias", d_q, out.attn_q_bias));
    EDGE_RETURN_IF_ERROR(binder.vector(prefix, "attn_k_bias", d_kv, out.attn_k_bias));
    EDGE_RETURN_IF_ERROR(binder.vector(prefix, "attn_v_bias", d_kv, out.attn_v_bias));
  }
  if (layer.qk_norm != QkNorm::kNone) {
    const bool by_head = layer.qk_norm == QkNorm::kHead;
    EDGE_RETURN_IF_ERROR(
        binder.vector(prefix, "attn_q_norm", by_head ? layer.head_dim : d_q, out.attn_q_norm));
    EDGE_RETURN_IF_ERROR(
        binder.vector(prefix, "attn_k_norm", by_head ? layer.head_dim : d_kv, out.attn_k_norm));
  }
  if (layer.balance_keys) {
    EDGE_RETURN_IF_ERROR(binder.vector(prefix, "attn_k_mean", d_kv, out.attn_k_mean));
    EDGE_RETURN_IF_ERROR(binder.vector(prefix, "attn_k_scale", d_kv, out.attn_k_scale));
  }
  EDGE_RETURN_IF_ERROR(binder.matrix(prefix, "attn_o", d_model, d_q, out.attn_o));
  if (!layer.o_bias) return {};
  return binder.vector(prefix, "attn_o_bias", d_model, out.attn_o_bias);
}

Status bind_mixer(Binder& binder, const ModelSpec& spec, const LayerSpec& layer,
                  const std::string& prefix, LayerWeights& out) {
  if (layer.pre_norm) {
    EDGE_RETURN_IF_ERROR(bind_norm(binder, spec, prefix, "attn_norm", out.attn_norm));
  }
  EDGE_RETURN_IF_ERROR(layer.mixer == Mixer::kShortConv
                           ? bind_short_conv(binder, spec, layer, prefix, out)
                           : bind_attention(binder, spec, layer, prefix, out));
  if (!layer.post_norm) return {};
  return bind_norm(binder, spec, prefix, "attn_post_norm", out.attn_post_norm);
}

// Rows that one expert takes in a stacked tensor: whole strips.
int64_t stacked(int64_t n_rows) { return (n_rows + kTileRows - 1) / kTileRows * kTileRows; }

Status bind_experts(Binder& binder, const LayerSpec& layer, const std::string& prefix,
                    int64_t d_model, LayerWeights& out) {
  const int64_t n = layer.n_experts, d_expert = layer.d_expert, d_shared = layer.d_shared;
  const int64_t n_inner = n * stacked(d_expert), n_outer = n * stacked(d_model);
  EDGE_RETURN_IF_ERROR(binder.half_matrix(prefix, "ffn_router", n, d_model, out.ffn_router));
  EDGE_RETURN_IF_ERROR(binder.matrix(prefix, "ffn_gate_exps", n_inner, d_model, out.ffn_gate_exps));
  EDGE_RETURN_IF_ERROR(binder.matrix(prefix, "ffn_up_exps", n_inner, d_model, out.ffn_up_exps));
  EDGE_RETURN_IF_ERROR(
      binder.matrix(prefix, "ffn_down_exps", n_outer, d_expert, out.ffn_down_exps));
  if (d_shared == 0) return {};
  EDGE_RETURN_IF_ERROR(
      binder.matrix(prefix, "ffn_gate_shexp", d_shared, d_model, out.ffn_gate_shexp));
  EDGE_RETURN_IF_ERROR(binder.matrix(prefix, "ffn_up_shexp", d_shared, d_model, out.ffn_up_shexp));
  EDGE_RETURN_IF_ERROR(
      binder.matrix(prefix, "ffn_down_shexp", d_model, d_shared, out.ffn_down_shexp));
  if (!layer.shared_gate) return {};
  return binder.half_matrix(prefix, "ffn_gate_inp_shexp", 1, d_model, out.ffn_gate_inp_shexp);
}

Status bind_ffn(Binder& binder, const ModelSpec& spec, const LayerSpec& layer,
                const std::string& prefix, LayerWeights& out) {
  const int64_t d_model = spec.d_model;
  const int64_t d_ffn = layer.d_ffn;
  if (layer.n_experts > 0) return bind_experts(binder, layer, prefix, d_model, out);
  if (layer.ffn_gated) {
    EDGE_RETURN_IF_ERROR(binder.matrix(prefix, "ffn_gate", d_ffn, d_model, out.ffn_gate));
  }
  EDGE_RETURN_IF_ERROR(binder.matrix(prefix, "ffn_up", d_ffn, d_model, out.ffn_up));
  EDGE_RETURN_IF_ERROR(binder.matrix(prefix, "ffn_down", d_model, d_ffn, out.ffn_down));
  if (!layer.ffn_bias) return {};
  if (layer.ffn_gated) {
    EDGE_RETURN_IF_ERROR(binder.vector(prefix, "ffn_gate_bias", d_ffn, out.ffn_gate_bias));
  }
  EDGE_RETURN_IF_ERROR(binder.vector(prefix, "ffn_up_bias", d_ffn, out.ffn_up_bias));
  return binder.vector(prefix, "ffn_down_bias", d_model, out.ffn_down_bias);
}

Status bind_layer(Binder& binder, const ModelSpec& spec, size_t index, LayerWeights& out) {
  const LayerSpec& layer = spec.layers[index];
  const std::string prefix = "layers." + std::to_string(index) + ".";
  EDGE_RETURN_IF_ERROR(bind_mixer(binder, spec, layer, prefix, out));
  if (layer.pre_norm) {
    EDGE_RETURN_IF_ERROR(bind_norm(binder, spec, prefix, "ffn_norm", out.ffn_norm));
  }
  EDGE_RETURN_IF_ERROR(bind_ffn(binder, spec, layer, prefix, out));
  if (!layer.post_norm) return {};
  return bind_norm(binder, spec, prefix, "ffn_post_norm", out.ffn_post_norm);
}

Status bind_rope(Binder& binder, const ModelSpec& spec, Weights& out) {
  const int64_t n = spec.n_rope / 2;
  if (n == 0) return {};
  EDGE_RETURN_IF_ERROR(binder.vector("", "rope_inv_freq", n, out.rope_inv_freq));
  if (spec.uses_local_rope()) {
    EDGE_RETURN_IF_ERROR(binder.vector("", "rope_inv_freq_local", n, out.rope_inv_freq_local));
  }
  if (spec.n_ctx_original == 0) return {};
  return binder.vector("", "rope_inv_freq_long", n, out.rope_inv_freq_long);
}

Status bind_fuse(Binder& binder, const ModelSpec& spec, Weights& out) {
  const int64_t d_model = spec.d_model;
  EDGE_RETURN_IF_ERROR(bind_norm(binder, spec, "", "embed_norm", out.embed_norm));
  EDGE_RETURN_IF_ERROR(binder.matrix("", "fuse_embed", d_model, d_model, out.fuse_embed));
  EDGE_RETURN_IF_ERROR(bind_norm(binder, spec, "", "hidden_norm", out.hidden_norm));
  return binder.matrix("", "fuse_hidden", d_model, d_model, out.fuse_hidden);
}

}  // namespace

Result<Weights> Weights::bind_head(const EdgeFile& file, const ModelSpec& spec,
                                   const Weights& model) {
  Binder binder(file);
  Weights weights;
  weights.token_embd = model.token_embd;
  weights.rope_inv_freq = model.rope_inv_freq;
  weights.rope_inv_freq_local = model.rope_inv_freq_local;
  weights.rope_inv_freq_long = model.rope_inv_freq_long;
  EDGE_RETURN_IF_ERROR(bind_fuse(binder, spec, weights));
  weights.layers.resize(1);
  EDGE_RETURN_IF_ERROR(bind_layer(binder, spec, 0, weights.layers[0]));
  EDGE_RETURN_IF_ERROR(bind_norm(binder, spec, "", "output_norm", weights.output_norm));
  EDGE_RETURN_IF_ERROR(binder.matrix("", "output", spec.n_vocab, spec.d_model, weights.output));
  EDGE_RETURN_IF_ERROR(binder.check_nothing_left());
  return weights;
}

Result<Weights> Weights::bind(const EdgeFile& file, const ModelSpec& spec) {
  Binder binder(file);
  Weights weights;
  EDGE_RETURN_IF_ERROR(
      binder.matrix("", "token_embd", spec.n_vocab, spec.d_model, weights.token_embd));
  if (spec.n_positions > 0) {
    EDGE_RETURN_IF_ERROR(
        binder.matrix("", "position_embd", spec.n_positions, spec.d_model, weights.position_embd));
  }
  EDGE_RETURN_IF_ERROR(bind_rope(binder, spec, weights));
  weights.layers.resize(spec.layers.size());
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    EDGE_RETURN_IF_ERROR(bind_layer(binder, spec, l, weights.layers[l]));
  }
  EDGE_RETURN_IF_ERROR(bind_norm(binder, spec, "", "output_norm", weights.output_norm));
  if (spec.tied_head) {
    weights.output = weights.token_embd;
  } else if (!spec.headless) {
    EDGE_RETURN_IF_ERROR(binder.matrix("", "output", spec.n_vocab, spec.d_model, weights.output));
  }
  EDGE_RETURN_IF_ERROR(binder.check_nothing_left());
  return weights;
}

}  // namespace edge
