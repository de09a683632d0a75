#include "backends/npu/graph_names.h"

#include <charconv>

#include "format/json.h"

namespace edge::npu {
namespace {

struct Row {
  std::string_view name;
  NameKind kind;
  bool is_output;
};
constexpr Row kRows[] = {
    {"ids", NameKind::kIds, false},      {"positions", NameKind::kPositions, false},
    {"x", NameKind::kX, false},          {"mask", NameKind::kMask, false},
    {"cos", NameKind::kCos, false},      {"sin", NameKind::kSin, false},
    {"past_k", NameKind::kPastK, false}, {"past_v", NameKind::kPastV, false},
    {"new_k", NameKind::kNewK, true},    {"new_v", NameKind::kNewV, true},
    {"logits", NameKind::kLogits, true}, {"hidden", NameKind::kHidden, true},
};

bool is_of_layer(NameKind kind) {
  return kind == NameKind::kPastK || kind == NameKind::kPastV || kind == NameKind::kNewK ||
         kind == NameKind::kNewV;
}

bool is_output(NameKind kind) { return std::ranges::find(kRows, kind, &Row::kind)->is_output; }

// "7", but not "", "07", "+7" or "7x"; -1 otherwise.
int number_of(std::string_view text) {
  int number = -1;
  if (text.empty() || (text.size() > 1 && text.front() == '0')) return -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? number : -1;
}

// Whether what stands behind the dot is right.
bool take_rest(std::string_view rest, bool has_dot, const Bundle& bundle, GraphName& name) {
  const auto n_layers = static_cast<int>(bundle.facts.layers.size());
  if (is_of_layer(name.kind)) {
    name.number = has_dot ? number_of(rest) : -1;
    return name.number >= 0 && name.number < n_layers;
  }
  if (name.kind == NameKind::kMask) {
    if (has_dot) name.number = number_of(rest);
    return std::ranges::any_of(bundle.facts.layers, [&](const GraphLayer& layer) {
      return layer.window == name.number && (!has_dot || layer.window > 0);
    });
  }
  if (name.kind == NameKind::kCos || name.kind == NameKind::kSin) {
    name.rope = has_dot ? std::string(rest) : "full";
    return bundle.rotations.contains(name.rope);
  }
  return !has_dot;
}

}  // namespace

Result<GraphName> parse_name(std::string_view text, const Bundle& bundle) {
  const size_t dot = text.find('.');
  const bool has_dot = dot != std::string_view::npos;
  const auto* const row = std::ranges::find(kRows, text.substr(0, dot), &Row::name);
  GraphName name;
  if (row != std::end(kRows)) {
    name.kind = row->kind;
    if (take_rest(has_dot ? text.substr(dot + 1) : "", has_dot, bundle, name)) return name;
  }
  return {Code::kTensorUnexpected, printable(text) + ", which this model does not have"};
}

std::vector<int64_t> shape_of(const GraphName& name, const GraphPart& part, const Bundle& bundle) {
  const int64_t n_rows = part.n_rows, n_past = part.n_past;
  switch (name.kind) {
    case NameKind::kIds:
    case NameKind::kPositions:
      return {n_rows};
    case NameKind::kX:
    case NameKind::kHidden:
      return {n_rows, bundle.facts.d_model};
    case NameKind::kLogits:
      return {n_rows, bundle.facts.n_vocab};
    case NameKind::kMask:
      return {n_rows, n_past + n_rows};
    case NameKind::kCos:
    case NameKind::kSin: {
      const auto n_freq = static_cast<int64_t>(bundle.rotations.at(name.rope).inv_freq.size());
      return {n_rows, 2 * n_freq};
    }
    case NameKind::kPastK:
    case NameKind::kPastV:
    case NameKind::kNewK:
    case NameKind::kNewV:
      break;
  }
  const GraphLayer& layer = bundle.facts.layers[static_cast<size_t>(name.number)];
  const bool is_past = name.kind == NameKind::kPastK || name.kind == NameKind::kPastV;
  return {layer.n_kv_heads, is_past ? n_past : n_rows, layer.head_dim};
}

ElementType type_of(const GraphName& name, const Bundle& bundle) {
  if (name.kind == NameKind::kIds || name.kind == NameKind::kPositions) return ElementType::kInt32;
  return is_of_layer(name.kind) && bundle.facts.is_half ? ElementType::kHalf : ElementType::kFloat;
}

Status check_names(const GraphPart& part, const Bundle& bundle) {
  const std::string where = "graph " + printable(part.name);
  std::vector<std::string> needed;  // among the outputs
  for (const auto* names : {&part.inputs, &part.outputs}) {
    std::vector<std::string> sorted = *names;
    std::ranges::sort(sorted);
    if (std::ranges::adjacent_find(sorted) != sorted.end()) {
      return {Code::kTensorUnexpected, where + " names an input or an output twice"};
    }
    for (const std::string& text : *names) {
      Result<GraphName> name = parse_name(text, bundle);
      if (!name.is_ok()) return name.status().with_context(where);
      if (is_output(name.value().kind) != (names == &part.outputs)) {
        return {Code::kTensorUnexpected, where + ": " + text + " is on the wrong side"};
      }
      if (text.starts_with("past_")) needed.push_back("new_" + text.substr(5));
    }
  }
  const auto n_new = std::ranges::count_if(
      part.outputs, [](const std::string& text) { return text.starts_with("new_"); });
  const bool has_all = std::ranges::all_of(
      needed, [&](const std::string& text) { return has_name(part.outputs, text); });
  if (has_all && n_new == static_cast<std::ptrdiff_t>(needed.size())) return {};
  return {Code::kTensorMissing, where + " gives other keys and values than it takes"};
}

}  // namespace edge::npu
