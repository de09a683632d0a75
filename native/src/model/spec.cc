#include "model/spec.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <utility>

#include "format/json.h"

namespace edge {

namespace {

// Inclusive ranges, equal to converters/spec.py. They keep every product below 2^63.
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxWidth = 65536;
constexpr size_t kMaxLayers = 1024;
constexpr int64_t kMaxHeads = 1024;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxFfn = 1 << 20;
constexpr int64_t kMaxContext = 1 << 24;
constexpr int64_t kMaxExperts = 1024;
constexpr int64_t kMaxConvKernel = 16;
constexpr size_t kMaxEosIds = 256;
constexpr size_t kMaxArchBytes = 64;

std::string key_is(std::string_view where, std::string_view key, const std::string& value) {
  return std::string(where) + ": '" + std::string(key) + "' is " + value;
}

Status check_range(int64_t value, int64_t low, int64_t high, std::string_view key,
                   std::string_view where) {
  if (value >= low && value <= high) return {};
  return {Code::kSpecInvalid, key_is(where, key, std::to_string(value)) + ", allowed is " +
                                  std::to_string(low) + " to " + std::to_string(high)};
}

Status check_even(int64_t value, std::string_view key, std::string_view where) {
  if (value % 2 == 0) return {};
  return {Code::kSpecInvalid, key_is(where, key, std::to_string(value)) + ", it must be even"};
}

Result<int> get_ranged(const Json& object, std::string_view key, int64_t low, int64_t high,
                       std::string_view where) {
  EDGE_ASSIGN_OR_RETURN(const int64_t value, object.get_int(key, where));
  EDGE_RETURN_IF_ERROR(check_range(value, low, high, key, where));
  return static_cast<int>(value);
}

// A word of the text and the value it stands for.
template <class T>
struct Word {
  std::string_view text;
  T value;
};
constexpr Word<NormKind> kNorms[] = {{"rms", NormKind::kRms}, {"layer", NormKind::kLayer}};
constexpr Word<RopeUse> kRopes[] = {
    {"full", RopeUse::kFull}, {"local", RopeUse::kLocal}, {"none", RopeUse::kNone}};
constexpr Word<QkNorm> kQkNorms[] = {
    {"none", QkNorm::kNone}, {"head", QkNorm::kHead}, {"full", QkNorm::kFull}};
constexpr Word<Mixer> kMixers[] = {{"gqa", Mixer::kGqa}, {"short_conv", Mixer::kShortConv}};
constexpr Word<FfnAct> kFfnActs[] = {{"silu", FfnAct::kSilu},
                                     {"gelu", FfnAct::kGelu},
                                     {"gelu_tanh", FfnAct::kGeluTanh},
                                     {"relu", FfnAct::kRelu}};

// Bounded well inside float, so that neither the value nor its square root degenerates.
Result<float> get_positive_float(const Json& object, std::string_view key, std::string_view where) {
  EDGE_ASSIGN_OR_RETURN(const double value, object.get_double(key, where));
  if (std::isfinite(value) && value >= 1e-30 && value <= 1e30) return static_cast<float>(value);
  return Status(Code::kSpecInvalid,
                key_is(where, key, std::to_string(value)) + ", allowed is 1e-30 to 1e30");
}

// What may be left out keeps the value that it has.
class Optional {
 public:
  Optional(const Json& object, std::string_view where) : object_(object), where_(where) {}

  Status ranged(std::string_view key, int64_t high, int& out) const {
    if (object_.find(key) == nullptr) return {};
    EDGE_ASSIGN_OR_RETURN(out, get_ranged(object_, key, 0, high, where_));
    return {};
  }
  Status flag(std::string_view key, bool& out) const {
    if (object_.find(key) == nullptr) return {};
    EDGE_ASSIGN_OR_RETURN(out, object_.get_bool(key, where_));
    return {};
  }
  Status positive_float(std::string_view key, float& out) const {
    if (object_.find(key) == nullptr) return {};
    EDGE_ASSIGN_OR_RETURN(out, get_positive_float(object_, key, where_));
    return {};
  }
  Status float_or_zero(std::string_view key, float& out) const {
    const Json* value = object_.find(key);
    const bool is_number = value != nullptr && (value->kind() == Json::Kind::kInt ||
                                                value->kind() == Json::Kind::kDouble);
    if (!is_number || value->as_double() != 0) return positive_float(key, out);
    out = 0;
    return {};
  }
  template <class T, size_t n>
  Status word(std::string_view key, const Word<T> (&words)[n], T& out) const {
    if (object_.find(key) == nullptr) return {};
    EDGE_ASSIGN_OR_RETURN(const std::string text, object_.get_string(key, where_));
    std::string allowed;
    for (const Word<T>& word : words) {
      if (word.text == text) {
        out = word.value;
        return {};
      }
      allowed.append(allowed.empty() ? "" : ", ").append(word.text);
    }
    return {Code::kSpecInvalid, key_is(where_, key, printable(text)) + ", allowed is " + allowed};
  }

 private:
  const Json& object_;
  std::string_view where_;
};

Result<std::vector<int32_t>> get_eos_ids(const Json& root, int n_vocab) {
  EDGE_ASSIGN_OR_RETURN(const Json* array, root.get_array("eos_ids", "spec"));
  EDGE_RETURN_IF_ERROR(check_range(static_cast<int64_t>(array->items().size()), 0, kMaxEosIds,
                                   "eos_ids (their number)", "spec"));
  std::vector<int32_t> ids;
  for (const Json& item : array->items()) {
    const std::string key = "eos_ids[" + std::to_string(ids.size()) + "]";
    if (item.kind() != Json::Kind::kInt) {
      return Status(Code::kJsonType, "spec: '" + key + "' must be an integer");
    }
    EDGE_RETURN_IF_ERROR(check_range(item.as_int(), 0, n_vocab - 1, key, "spec"));
    ids.push_back(static_cast<int32_t>(item.as_int()));
  }
  return ids;
}

Status refuse_if(bool is_wrong, std::string_view where, std::string_view key,
                 std::string_view rule) {
  if (!is_wrong) return {};
  return {Code::kSpecInvalid,
          std::string(where) + ": '" + std::string(key) + "' " + std::string(rule)};
}

// What all heads of a layer have in common.
Status read_head_options(const Json& item, std::string_view where, LayerSpec& layer) {
  const Optional optional(item, where);
  EDGE_RETURN_IF_ERROR(optional.word("rope", kRopes, layer.rope));
  EDGE_RETURN_IF_ERROR(optional.ranged("window", kMaxContext, layer.window));
  EDGE_RETURN_IF_ERROR(optional.flag("qkv_bias", layer.qkv_bias));
  EDGE_RETURN_IF_ERROR(optional.flag("o_bias", layer.o_bias));
  EDGE_RETURN_IF_ERROR(optional.word("qk_norm", kQkNorms, layer.qk_norm));
  EDGE_RETURN_IF_ERROR(optional.flag("rotate_keys", layer.rotate_keys));
  EDGE_RETURN_IF_ERROR(optional.flag("balance_keys", layer.balance_keys));
  EDGE_RETURN_IF_ERROR(optional.float_or_zero("attn_scale", layer.attn_scale));
  return optional.float_or_zero("attn_softcap", layer.attn_softcap);
}

Status read_attention(const Json& item, const ModelSpec& spec, std::string_view where,
                      LayerSpec& layer) {
  EDGE_ASSIGN_OR_RETURN(layer.n_heads, get_ranged(item, "n_heads", 1, kMaxHeads, where));
  EDGE_ASSIGN_OR_RETURN(layer.n_kv_heads, get_ranged(item, "n_kv_heads", 1, layer.n_heads, where));
  if (layer.n_heads % layer.n_kv_heads != 0) {
    return Status(Code::kSpecInvalid,
                  key_is(where, "n_kv_heads", std::to_string(layer.n_kv_heads)) +
                      ", it must divide n_heads (" + std::to_string(layer.n_heads) + ")");
  }
  EDGE_ASSIGN_OR_RETURN(layer.head_dim, get_ranged(item, "head_dim", 2, kMaxHeadDim, where));
  EDGE_RETURN_IF_ERROR(check_even(layer.head_dim, "head_dim", where));
  if (spec.n_rope > layer.head_dim) {
    return Status(Code::kSpecInvalid, key_is(where, "head_dim", std::to_string(layer.head_dim)) +
                                          ", it must be at least n_rope (" +
                                          std::to_string(spec.n_rope) + ")");
  }
  EDGE_RETURN_IF_ERROR(read_head_options(item, where, layer));
  EDGE_RETURN_IF_ERROR(refuse_if(layer.rope == RopeUse::kLocal && spec.n_rope == 0, where, "rope",
                                 "is local, which needs an n_rope above 0"));
  return refuse_if(layer.balance_keys && layer.attn_softcap > 0, where, "balance_keys",
                   "is true, which excludes an attn_softcap: it sees what softmax does not");
}

Status read_short_conv(const Json& item, std::string_view where, LayerSpec& layer) {
  for (const char* key : {"n_heads", "n_kv_heads", "head_dim"}) {
    EDGE_RETURN_IF_ERROR(get_ranged(item, key, 0, 0, where).status());
  }
  EDGE_ASSIGN_OR_RETURN(layer.conv_kernel,
                        get_ranged(item, "conv_kernel", 2, kMaxConvKernel, where));
  EDGE_RETURN_IF_ERROR(read_head_options(item, where, layer));
  const bool is_plain = layer.rope == RopeUse::kFull && layer.window == 0 && !layer.qkv_bias &&
                        !layer.o_bias && layer.qk_norm == QkNorm::kNone && !layer.rotate_keys &&
                        !layer.balance_keys && layer.attn_scale == 0 && layer.attn_softcap == 0;
  return refuse_if(!is_plain, where, "mixer", "is short_conv, but other keys describe attention");
}

Status read_mixer(const Json& item, const ModelSpec& spec, std::string_view where,
                  LayerSpec& layer) {
  EDGE_RETURN_IF_ERROR(Optional(item, where).word("mixer", kMixers, layer.mixer));
  if (layer.mixer == Mixer::kShortConv) return read_short_conv(item, where, layer);
  EDGE_RETURN_IF_ERROR(Optional(item, where).ranged("conv_kernel", 0, layer.conv_kernel));
  return read_attention(item, spec, where, layer);
}

Status read_norms(const Json& item, std::string_view where, LayerSpec& layer) {
  const Optional optional(item, where);
  EDGE_RETURN_IF_ERROR(optional.flag("pre_norm", layer.pre_norm));
  EDGE_RETURN_IF_ERROR(optional.flag("post_norm", layer.post_norm));
  EDGE_RETURN_IF_ERROR(optional.flag("parallel", layer.parallel));
  return refuse_if(layer.parallel && (layer.post_norm || !layer.pre_norm), where, "parallel",
                   "excludes post_norm and needs pre_norm");
}

Status read_experts(const Json& item, std::string_view where, LayerSpec& layer) {
  const Optional optional(item, where);
  EDGE_RETURN_IF_ERROR(optional.ranged("n_experts", kMaxExperts, layer.n_experts));
  EDGE_RETURN_IF_ERROR(optional.ranged("n_experts_used", kMaxExperts, layer.n_experts_used));
  EDGE_RETURN_IF_ERROR(optional.ranged("d_expert", kMaxFfn, layer.d_expert));
  EDGE_RETURN_IF_ERROR(optional.ranged("d_shared", kMaxFfn, layer.d_shared));
  EDGE_RETURN_IF_ERROR(optional.flag("shared_gate", layer.shared_gate));
  EDGE_RETURN_IF_ERROR(optional.flag("norm_topk", layer.norm_topk));
  if (layer.n_experts == 0) {
    return refuse_if(layer.n_experts_used != 0 || layer.d_expert != 0 || layer.d_shared != 0 ||
                         layer.shared_gate || layer.norm_topk,
                     where, "n_experts", "is 0, but other keys describe experts");
  }
  EDGE_RETURN_IF_ERROR(
      check_range(layer.n_experts_used, 1, layer.n_experts, "n_experts_used", where));
  EDGE_RETURN_IF_ERROR(check_range(layer.d_expert, 1, kMaxFfn, "d_expert", where));
  EDGE_RETURN_IF_ERROR(
      refuse_if(layer.ffn_bias, where, "ffn_bias", "is true, but experts have no biases"));
  EDGE_RETURN_IF_ERROR(
      refuse_if(!layer.ffn_gated, where, "ffn_gated", "is false, but experts are gated"));
  return refuse_if(layer.shared_gate && layer.d_shared == 0, where, "shared_gate",
                   "is true, which needs a d_shared above 0");
}

Status read_ffn(const Json& item, std::string_view where, LayerSpec& layer) {
  const Optional optional(item, where);
  EDGE_RETURN_IF_ERROR(optional.word("ffn_act", kFfnActs, layer.ffn_act));
  EDGE_RETURN_IF_ERROR(optional.flag("ffn_gated", layer.ffn_gated));
  EDGE_RETURN_IF_ERROR(optional.flag("ffn_bias", layer.ffn_bias));
  EDGE_RETURN_IF_ERROR(read_experts(item, where, layer));
  const bool is_dense = layer.n_experts == 0;
  EDGE_ASSIGN_OR_RETURN(layer.d_ffn,
                        get_ranged(item, "d_ffn", is_dense ? 1 : 0, is_dense ? kMaxFfn : 0, where));
  return {};
}

Result<LayerSpec> get_layer(const Json& item, const ModelSpec& spec, std::string_view where) {
  if (item.kind() != Json::Kind::kObject) {
    return Status(Code::kJsonType, std::string(where) + ": must be an object");
  }
  EDGE_RETURN_IF_ERROR(item.only_keys(
      {"n_heads",      "n_kv_heads", "head_dim",   "d_ffn",          "rope",        "window",
       "pre_norm",     "post_norm",  "parallel",   "qkv_bias",       "o_bias",      "ffn_bias",
       "qk_norm",      "attn_scale", "ffn_act",    "attn_softcap",   "ffn_gated",   "n_experts",
       "d_expert",     "d_shared",   "norm_topk",  "n_experts_used", "shared_gate", "rotate_keys",
       "balance_keys", "mixer",      "conv_kernel"},
      where));
  LayerSpec layer;
  EDGE_RETURN_IF_ERROR(read_mixer(item, spec, where, layer));
  EDGE_RETURN_IF_ERROR(read_norms(item, where, layer));
  EDGE_RETURN_IF_ERROR(read_ffn(item, where, layer));
  return layer;
}

Status read_layers(const Json& root, ModelSpec& spec) {
  EDGE_ASSIGN_OR_RETURN(const Json* array, root.get_array("layers", "spec"));
  EDGE_RETURN_IF_ERROR(check_range(static_cast<int64_t>(array->items().size()), 1, kMaxLayers,
                                   "layers (their number)", "spec"));
  spec.layers.reserve(array->items().size());
  for (const Json& item : array->items()) {
    const std::string where = "spec: layers[" + std::to_string(spec.layers.size()) + "]";
    EDGE_ASSIGN_OR_RETURN(const LayerSpec layer, get_layer(item, spec, where));
    spec.layers.push_back(layer);
  }
  return {};
}

Status read_optional(const Json& root, ModelSpec& spec) {
  const Optional optional(root, "spec");
  EDGE_RETURN_IF_ERROR(optional.word("norm", kNorms, spec.norm));
  EDGE_RETURN_IF_ERROR(optional.positive_float("embed_scale", spec.embed_scale));
  EDGE_RETURN_IF_ERROR(optional.float_or_zero("final_softcap", spec.final_softcap));
  EDGE_RETURN_IF_ERROR(optional.ranged("n_positions", kMaxContext, spec.n_positions));
  if (spec.n_positions > 0 && spec.n_ctx_train > spec.n_positions) {
    return {Code::kSpecInvalid, key_is("spec", "n_ctx_train", std::to_string(spec.n_ctx_train)) +
                                    ", it must be at most n_positions (" +
                                    std::to_string(spec.n_positions) + ")"};
  }
  EDGE_RETURN_IF_ERROR(optional.positive_float("rope_local_factor", spec.rope_local_factor));
  EDGE_RETURN_IF_ERROR(optional.ranged("n_ctx_original", kMaxContext, spec.n_ctx_original));
  EDGE_RETURN_IF_ERROR(optional.flag("headless", spec.headless));
  EDGE_RETURN_IF_ERROR(refuse_if(spec.headless && spec.tied_head, "spec", "headless",
                                 "is true, which excludes tied_head"));
  return refuse_if(spec.n_ctx_original > 0 && spec.n_rope == 0, "spec", "n_ctx_original",
                   "is above 0, which needs an n_rope above 0");
}

}  // namespace

Result<ModelSpec> ModelSpec::from_json(std::string_view text) {
  constexpr std::string_view kWhere = "spec";
  EDGE_ASSIGN_OR_RETURN(const Json root, Json::parse(text));
  if (root.kind() != Json::Kind::kObject) {
    return Status(Code::kJsonType, "spec: must be an object");
  }
  EDGE_RETURN_IF_ERROR(root.only_keys(
      {"arch", "n_vocab", "d_model", "n_ctx_train", "norm_eps", "tied_head", "n_rope",
       "rope_factor", "bos_id", "eos_ids", "layers", "norm", "embed_scale", "final_softcap",
       "n_positions", "rope_local_factor", "n_ctx_original", "headless"},
      kWhere));
  ModelSpec spec;
  EDGE_ASSIGN_OR_RETURN(spec.arch, root.get_string("arch", kWhere));
  EDGE_RETURN_IF_ERROR(check_range(static_cast<int64_t>(spec.arch.size()), 0, kMaxArchBytes,
                                   "arch (its length)", kWhere));
  EDGE_ASSIGN_OR_RETURN(spec.n_vocab, get_ranged(root, "n_vocab", 1, kMaxVocab, kWhere));
  EDGE_ASSIGN_OR_RETURN(spec.d_model, get_ranged(root, "d_model", 1, kMaxWidth, kWhere));
  EDGE_ASSIGN_OR_RETURN(spec.n_ctx_train, get_ranged(root, "n_ctx_train", 1, kMaxContext, kWhere));
  EDGE_ASSIGN_OR_RETURN(spec.norm_eps, get_positive_float(root, "norm_eps", kWhere));
  EDGE_ASSIGN_OR_RETURN(spec.tied_head, root.get_bool("tied_head", kWhere));
  EDGE_ASSIGN_OR_RETURN(spec.n_rope, get_ranged(root, "n_rope", 0, kMaxHeadDim, kWhere));
  EDGE_RETURN_IF_ERROR(check_even(spec.n_rope, "n_rope", kWhere));
  EDGE_ASSIGN_OR_RETURN(spec.rope_factor, get_positive_float(root, "rope_factor", kWhere));
  EDGE_ASSIGN_OR_RETURN(spec.bos_id, get_ranged(root, "bos_id", -1, spec.n_vocab - 1, kWhere));
  EDGE_ASSIGN_OR_RETURN(spec.eos_ids, get_eos_ids(root, spec.n_vocab));
  EDGE_RETURN_IF_ERROR(read_optional(root, spec));
  EDGE_RETURN_IF_ERROR(read_layers(root, spec));
  return spec;
}

bool ModelSpec::uses_local_rope() const {
  return std::any_of(layers.begin(), layers.end(),
                     [](const LayerSpec& layer) { return layer.rope == RopeUse::kLocal; });
}

KvLayout ModelSpec::kv_layout(KvFormat format) const {
  // A window as wide as the context is none.
  const auto window_of = [this](const LayerSpec& layer) {
    return layer.window < n_ctx_train ? layer.window : 0;
  };
  using Key = std::pair<bool, int>;  // whether it is a state, and the window
  const auto key_of = [&](const LayerSpec& layer) -> Key {
    if (layer.mixer == Mixer::kShortConv) return {true, layer.conv_kernel};
    return {false, window_of(layer)};
  };
  std::set<Key> keys;
  for (const LayerSpec& layer : layers) keys.insert(key_of(layer));
  KvLayout layout;
  for (const auto& [is_state, window] : keys) {
    layout.groups.push_back({.window = window, .is_state = is_state});
  }
  layout.layers.reserve(layers.size());
  for (const LayerSpec& layer : layers) {
    const auto group = std::distance(keys.begin(), keys.find(key_of(layer)));
    KvGroup& pages = layout.groups[static_cast<size_t>(group)];
    const bool is_state = pages.is_state;
    const KvLayerLayout kv{.offset_bytes = pages.page_bytes,
                           .n_kv_heads = layer.n_kv_heads,
                           .head_dim = layer.head_dim,
                           .group = static_cast<int>(group),
                           .format = is_state ? KvFormat::kF16 : format,
                           .first_offset_bytes = pages.first_page_bytes,
                           .mixes_keys = layer.rotate_keys && format != KvFormat::kF16,
                           .balances_keys = layer.balance_keys && format != KvFormat::kF16,
                           .state_cols = is_state ? static_cast<size_t>(d_model) : 0};
    pages.page_bytes += kv.layer_bytes(kFirstPages);
    pages.first_page_bytes += kv.layer_bytes(0);
    layout.layers.push_back(kv);
  }
  return layout;
}

}  // namespace edge
