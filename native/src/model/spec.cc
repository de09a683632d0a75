#include "model/spec.h"

#include <cmath>

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

// Bounded well inside float, so that neither the value nor its square root degenerates.
Result<float> get_positive_float(const Json& object, std::string_view key, std::string_view where) {
  EDGE_ASSIGN_OR_RETURN(const double value, object.get_double(key, where));
  if (std::isfinite(value) && value >= 1e-30 && value <= 1e30) return static_cast<float>(value);
  return Status(Code::kSpecInvalid,
                key_is(where, key, std::to_string(value)) + ", allowed is 1e-30 to 1e30");
}

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

Result<LayerSpec> get_layer(const Json& item, int n_rope, std::string_view where) {
  if (item.kind() != Json::Kind::kObject) {
    return Status(Code::kJsonType, std::string(where) + ": must be an object");
  }
  EDGE_RETURN_IF_ERROR(item.only_keys({"n_heads", "n_kv_heads", "head_dim", "d_ffn"}, where));
  LayerSpec layer;
  EDGE_ASSIGN_OR_RETURN(layer.n_heads, get_ranged(item, "n_heads", 1, kMaxHeads, where));
  EDGE_ASSIGN_OR_RETURN(layer.n_kv_heads, get_ranged(item, "n_kv_heads", 1, layer.n_heads, where));
  if (layer.n_heads % layer.n_kv_heads != 0) {
    return Status(Code::kSpecInvalid,
                  key_is(where, "n_kv_heads", std::to_string(layer.n_kv_heads)) +
                      ", it must divide n_heads (" + std::to_string(layer.n_heads) + ")");
  }
  EDGE_ASSIGN_OR_RETURN(layer.head_dim, get_ranged(item, "head_dim", 2, kMaxHeadDim, where));
  EDGE_RETURN_IF_ERROR(check_even(layer.head_dim, "head_dim", where));
  if (n_rope > layer.head_dim) {
    return Status(Code::kSpecInvalid, key_is(where, "head_dim", std::to_string(layer.head_dim)) +
                                          ", it must be at least n_rope (" +
                                          std::to_string(n_rope) + ")");
  }
  EDGE_ASSIGN_OR_RETURN(layer.d_ffn, get_ranged(item, "d_ffn", 1, kMaxFfn, where));
  return layer;
}

Status read_layers(const Json& root, ModelSpec& spec) {
  EDGE_ASSIGN_OR_RETURN(const Json* array, root.get_array("layers", "spec"));
  EDGE_RETURN_IF_ERROR(check_range(static_cast<int64_t>(array->items().size()), 1, kMaxLayers,
                                   "layers (their number)", "spec"));
  spec.layers.reserve(array->items().size());
  for (const Json& item : array->items()) {
    const std::string where = "spec: layers[" + std::to_string(spec.layers.size()) + "]";
    EDGE_ASSIGN_OR_RETURN(const LayerSpec layer, get_layer(item, spec.n_rope, where));
    spec.layers.push_back(layer);
  }
  return {};
}

}  // namespace

Result<ModelSpec> ModelSpec::from_json(std::string_view text) {
  constexpr std::string_view kWhere = "spec";
  EDGE_ASSIGN_OR_RETURN(const Json root, Json::parse(text));
  if (root.kind() != Json::Kind::kObject) {
    return Status(Code::kJsonType, "spec: must be an object");
  }
  EDGE_RETURN_IF_ERROR(
      root.only_keys({"arch", "n_vocab", "d_model", "n_ctx_train", "norm_eps", "tied_head",
                      "n_rope", "rope_factor", "bos_id", "eos_ids", "layers"},
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
  EDGE_ASSIGN_OR_RETURN(spec.n_rope, get_ranged(root, "n_rope", 2, kMaxHeadDim, kWhere));
  EDGE_RETURN_IF_ERROR(check_even(spec.n_rope, "n_rope", kWhere));
  EDGE_ASSIGN_OR_RETURN(spec.rope_factor, get_positive_float(root, "rope_factor", kWhere));
  EDGE_ASSIGN_OR_RETURN(spec.bos_id, get_ranged(root, "bos_id", -1, spec.n_vocab - 1, kWhere));
  EDGE_ASSIGN_OR_RETURN(spec.eos_ids, get_eos_ids(root, spec.n_vocab));
  EDGE_RETURN_IF_ERROR(read_layers(root, spec));
  return spec;
}

KvLayout ModelSpec::kv_layout() const {
  KvLayout layout;
  layout.layers.reserve(layers.size());
  for (const LayerSpec& layer : layers) {
    KvLayerLayout kv{layout.page_bytes, layer.n_kv_heads, layer.head_dim};
    layout.page_bytes += kv.layer_bytes();
    layout.layers.push_back(kv);
  }
  return layout;
}

}  // namespace edge
