#include "model/adapter.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>

#include "format/json.h"

namespace edge {

namespace {

constexpr std::string_view kKind = "adapter";
constexpr std::array<std::string_view, kLoraRoles> kRoleNames = {
    "attn_q", "attn_k", "attn_v", "attn_o", "ffn_gate", "ffn_up", "ffn_down"};
constexpr std::string_view kHalfA = "lora_a", kHalfB = "lora_b";

struct Shape {
  int64_t n_rows = 0;  // 0: the model has no such matrix
  int64_t n_cols = 0;
};

Shape shape_of(const ModelSpec& spec, const LayerSpec& layer, LoraRole role) {
  const int64_t d_model = spec.d_model;
  const int64_t d_q = int64_t{layer.n_heads} * layer.head_dim;
  const int64_t d_kv = int64_t{layer.n_kv_heads} * layer.head_dim;
  switch (role) {
    case LoraRole::kAttnQ:
      return {d_q, d_model};
    case LoraRole::kAttnK:
    case LoraRole::kAttnV:
      return {d_kv, d_model};
    case LoraRole::kAttnO:
      return {d_model, d_q};
    case LoraRole::kFfnGate:
      return layer.n_experts == 0 && layer.ffn_gated ? Shape{layer.d_ffn, d_model} : Shape{};
    case LoraRole::kFfnUp:
      return layer.n_experts == 0 ? Shape{layer.d_ffn, d_model} : Shape{};
    case LoraRole::kFfnDown:
      return layer.n_experts == 0 ? Shape{d_model, layer.d_ffn} : Shape{};
  }
  return {};
}

Status check_spec(std::string_view text, const ModelSpec& spec) {
  EDGE_ASSIGN_OR_RETURN(const Json json, Json::parse(text));
  const Json* kind = json.find("kind");
  if (kind == nullptr || kind->as_string() != kKind) {
    return {Code::kSpecInvalid,
            "the file is not an adapter; edgellm convert DIR OUT --base MODEL "
            "makes one of a PEFT directory"};
  }
  EDGE_RETURN_IF_ERROR(json.only_keys({"kind", "arch", "d_model", "n_layers"}, "spec"));
  EDGE_ASSIGN_OR_RETURN(const std::string arch, json.get_string("arch", "spec"));
  EDGE_ASSIGN_OR_RETURN(const int64_t d_model, json.get_int("d_model", "spec"));
  EDGE_ASSIGN_OR_RETURN(const int64_t n_layers, json.get_int("n_layers", "spec"));
  const auto n_own = static_cast<int64_t>(spec.layers.size());
  if (arch == spec.arch && d_model == spec.d_model && n_layers == n_own) return {};
  return {Code::kAdapterMismatch, "the adapter is for a model of family " + printable(arch) +
                                      " with " + std::to_string(n_layers) + " layers of width " +
                                      std::to_string(d_model) + ", this one is " +
                                      printable(spec.arch) + " with " + std::to_string(n_own) +
                                      " of width " + std::to_string(spec.d_model) +
                                      "; load it on the model that it was trained on"};
}

struct Place {
  size_t layer = 0;
  LoraRole role = LoraRole::kAttnQ;
  bool is_a = false;
};

// Of a name "layers.3.attn_q.lora_a".
std::optional<Place> place_of(std::string_view name, const ModelSpec& spec) {
  constexpr std::string_view kLayers = "layers.";
  if (!name.starts_with(kLayers)) return std::nullopt;
  name.remove_prefix(kLayers.size());
  Place place;
  const char* const end = name.data() + name.size();
  const std::from_chars_result parsed = std::from_chars(name.data(), end, place.layer);
  if (parsed.ec != std::errc() || place.layer >= spec.layers.size()) return std::nullopt;
  // One name for a place: no leading zeros.
  const std::string digits = std::to_string(place.layer);
  if (!name.starts_with(digits)) return std::nullopt;
  name.remove_prefix(digits.size());
  if (!name.starts_with('.')) return std::nullopt;
  name.remove_prefix(1);
  const size_t dot = name.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view half = name.substr(dot + 1);
  if (half != kHalfA && half != kHalfB) return std::nullopt;
  place.is_a = half == kHalfA;
  const auto role = std::find(kRoleNames.begin(), kRoleNames.end(), name.substr(0, dot));
  if (role == kRoleNames.end()) return std::nullopt;
  place.role = static_cast<LoraRole>(role - kRoleNames.begin());
  return place;
}

std::string shape_text(int64_t n_rows, int64_t n_cols) {
  std::string text = "[";
  text.append(std::to_string(n_rows)).append(", ").append(std::to_string(n_cols)).append("]");
  return text;
}

Status refuse(Code code, const TensorEntry& entry, const std::string& why) {
  return {code, "tensor '" + entry.name + "': " + why};
}

// The side that a half shares with the matrix must have its length, the other is the rank.
Status check_half(const TensorEntry& entry, const Place& place, const Shape& matrix) {
  const Tensor& tensor = entry.tensor;
  const std::string_view half = place.is_a ? kHalfA : kHalfB;
  if (matrix.n_rows == 0) {
    return refuse(Code::kTensorUnexpected, entry, "the model has no such matrix");
  }
  if (entry.role != half) {
    return refuse(Code::kTensorRole, entry,
                  "role is '" + entry.role + "', expected '" + std::string(half) + "'");
  }
  if (tensor.format != Format::kF16) {
    return refuse(Code::kTensorFormat, entry,
                  "format is " + std::string(format_name(tensor.format)) + ", expected F16");
  }
  if (tensor.act != Act::kF32) {
    return refuse(Code::kTensorAct, entry, "F16 weights take f32 activations");
  }
  const int64_t rank = place.is_a ? tensor.n_rows : tensor.n_cols;
  const int64_t shared = place.is_a ? tensor.n_cols : tensor.n_rows;
  const int64_t wanted = place.is_a ? matrix.n_cols : matrix.n_rows;
  if (shared != wanted || rank < 1 || rank > kMaxAdapterRank) {
    return refuse(Code::kTensorShape, entry,
                  "shape is " + shape_text(tensor.n_rows, tensor.n_cols) + ", a matrix of " +
                      shape_text(matrix.n_rows, matrix.n_cols) + " asks for so many " +
                      (place.is_a ? "columns: " : "rows: ") + std::to_string(wanted) +
                      ", and a rank of 1 to " + std::to_string(kMaxAdapterRank));
  }
  const auto n_bytes = tensor_bytes(tensor.format, static_cast<uint64_t>(tensor.n_rows),
                                    static_cast<uint64_t>(tensor.n_cols));
  if (!n_bytes || tensor.data == nullptr || tensor.n_bytes < *n_bytes) {
    return refuse(Code::kTensorShape, entry,
                  std::to_string(tensor.n_bytes) + " bytes do not hold " +
                      shape_text(tensor.n_rows, tensor.n_cols));
  }
  return {};
}

Status check_pairs(Adapter& adapter) {
  for (size_t l = 0; l < adapter.layers.size(); ++l) {
    for (size_t role = 0; role < kLoraRoles; ++role) {
      const LoraPair& pair = adapter.layers[l][role];
      if (!pair.a.is_valid() && !pair.b.is_valid()) continue;
      const std::string name =
          "layers." + std::to_string(l) + "." + std::string(kRoleNames[role]) + ".";
      if (!pair.a.is_valid() || !pair.b.is_valid()) {
        return {Code::kTensorMissing, "tensor '" + name +
                                          std::string(pair.a.is_valid() ? kHalfB : kHalfA) +
                                          "': the other half is there"};
      }
      if (pair.a.n_rows != pair.b.n_cols) {
        return {Code::kTensorShape, "tensor '" + name + std::string(kHalfB) + "': its rank is " +
                                        std::to_string(pair.b.n_cols) +
                                        ", that of the other half " +
                                        std::to_string(pair.a.n_rows)};
      }
      adapter.rank = std::max(adapter.rank, static_cast<int>(pair.a.n_rows));
    }
  }
  if (adapter.rank > 0) return {};
  return {Code::kTensorMissing, "the adapter changes no matrix"};
}

}  // namespace

Result<Adapter> Adapter::bind(const EdgeFile& file, const ModelSpec& spec) {
  EDGE_RETURN_IF_ERROR(check_spec(file.metadata("edgellm.spec"), spec));
  Adapter adapter;
  adapter.layers.resize(spec.layers.size());
  for (const TensorEntry& entry : file.tensors()) {
    if (entry.tensor.format == Format::kU8) continue;
    const std::optional<Place> place = place_of(entry.name, spec);
    if (!place) {
      return refuse(Code::kTensorUnexpected, entry, "no adapter of this model has a place for it");
    }
    EDGE_RETURN_IF_ERROR(
        check_half(entry, *place, shape_of(spec, spec.layers[place->layer], place->role)));
    LoraPair& pair = adapter.layers[place->layer][static_cast<size_t>(place->role)];
    (place->is_a ? pair.a : pair.b) = entry.tensor;
  }
  EDGE_RETURN_IF_ERROR(check_pairs(adapter));
  return adapter;
}

bool is_adapter_spec(std::string_view spec_json) {
  const Result<Json> json = Json::parse(spec_json);
  if (!json.is_ok()) return false;
  const Json* kind = json.value().find("kind");
  return kind != nullptr && kind->as_string() == kKind;
}

void AdapterRows::set(std::span<const RowInput> rows) {
  runs_.clear();
  for (size_t r = 0; r < rows.size(); ++r) {
    const Adapter* adapter = rows[r].adapter;
    if (adapter == nullptr) continue;
    if (r > 0 && rows[r - 1].adapter == adapter) {
      ++runs_.back().n_rows;
    } else {
      runs_.push_back({adapter, static_cast<int>(r), 1});
    }
  }
}

LoraSpan AdapterRows::of(size_t layer, LoraRole role) {
  if (runs_.empty()) return {};
  std::vector<LoraRows>& found = found_[static_cast<size_t>(role)];
  found.clear();
  for (const Run& run : runs_) {
    const LoraPair& pair = run.adapter->layers[layer][static_cast<size_t>(role)];
    if (pair.is_valid()) found.push_back({run.row0, run.n_rows, &pair.a, &pair.b});
  }
  return found;
}

}  // namespace edge
