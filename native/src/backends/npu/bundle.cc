#include "backends/npu/bundle.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "backends/npu/bundle_fields.h"
#include "backends/npu/graph_names.h"
#include "base/os.h"
#include "base/sha256.h"
#include "format/json.h"

namespace edge::npu {
namespace {

constexpr int64_t kVersion = 1;
constexpr size_t kMostDescriptionBytes = size_t{16} << 20;
constexpr int kMostRows = 1024;        // of a graph
constexpr int kMostContext = 1 << 20;  // slots
constexpr int kMostDraftRows = 16;
constexpr size_t kMostGenerations = 16;
constexpr const char* kTokenizer = "tokenizer.bin";

Status read_layers(const Json& model, const std::string& where, GraphFacts& facts) {
  EDGE_ASSIGN_OR_RETURN(const Json* layers, model.get_array("layers", where));
  for (const Json& layer : layers->items()) {
    const std::string at = where + ": layers";
    GraphLayer read;
    EDGE_ASSIGN_OR_RETURN(read.n_kv_heads, get_size(layer, "n_kv_heads", at, 1 << 16));
    EDGE_ASSIGN_OR_RETURN(read.head_dim, get_size(layer, "head_dim", at, 1 << 16));
    EDGE_ASSIGN_OR_RETURN(read.window, get_size(layer, "window", at));
    if (read.n_kv_heads == 0 || read.head_dim == 0) return wrong_field(at, "head_dim");
    facts.layers.push_back(read);
  }
  if (facts.layers.empty()) return wrong_field(where, "layers");
  return {};
}

Status read_rotations(const Json& model, const std::string& where, Bundle& bundle) {
  EDGE_ASSIGN_OR_RETURN(const Json* rotations, model.get_object("rotations", where));
  for (const auto& [name, value] : rotations->members()) {
    const std::string at = where + ": rotations";
    Rotation rotation;
    EDGE_ASSIGN_OR_RETURN(rotation.factor, value.get_double("factor", at));
    EDGE_ASSIGN_OR_RETURN(const Json* table, value.get_array("inv_freq", at));
    for (const Json& one : table->items()) {
      if (one.kind() != Json::Kind::kInt && one.kind() != Json::Kind::kDouble) {
        return wrong_field(at, "inv_freq");
      }
      rotation.inv_freq.push_back(static_cast<float>(one.as_double()));
    }
    bundle.rotations.emplace(name, std::move(rotation));
  }
  return {};
}

Status read_model(const Json& root, const std::string& where, Bundle& bundle) {
  EDGE_ASSIGN_OR_RETURN(const Json* model, root.get_object("model", where));
  GraphFacts& facts = bundle.facts;
  EDGE_ASSIGN_OR_RETURN(facts.n_vocab, get_size(*model, "n_vocab", where));
  EDGE_ASSIGN_OR_RETURN(facts.d_model, get_size(*model, "d_model", where));
  EDGE_ASSIGN_OR_RETURN(bundle.n_positions, get_size(*model, "n_positions", where));
  if (facts.n_vocab == 0 || facts.d_model == 0) return wrong_field(where, "n_vocab");
  EDGE_ASSIGN_OR_RETURN(const std::string dtype, get_text(*model, "kv_dtype", where));
  if (dtype != "f16" && dtype != "f32") return wrong_field(where, "kv_dtype");
  facts.is_half = dtype == "f16";
  EDGE_ASSIGN_OR_RETURN(const double masked, model->get_double("masked", where));
  if (!(masked < 0) || masked < -3e38) return wrong_field(where, "masked");
  bundle.masked = static_cast<float>(masked);
  EDGE_ASSIGN_OR_RETURN(const int stateful, get_size(*model, "stateful", where, 1));
  if (stateful != 0) {
    return {Code::kFeatureUnsupported,
            where +
                ": its graphs keep keys and values themselves, as Core ML's do; this backend "
                "drives graphs of onnxruntime: convert with --target npu:ort or npu:qualcomm-..."};
  }
  EDGE_RETURN_IF_ERROR(read_layers(*model, where, facts));
  return read_rotations(*model, where, bundle);
}

Status read_generations(const Json& root, const std::string& where, const std::string& wanted,
                        Bundle& bundle) {
  if (root.find("generations") == nullptr) return {};
  EDGE_ASSIGN_OR_RETURN(const auto names, get_texts(root, "generations", where));
  if (names.size() > kMostGenerations) return wrong_field(where, "generations");
  std::string known;
  for (const std::string& name : names) {
    if (!is_plain_name(name)) return wrong_field(where, "generations");
    (name == wanted ? bundle.folder : bundle.other_folders.emplace_back()) = "v" + name + '/';
    known += (known.empty() ? "" : ", ") + name;
  }
  if (!bundle.folder.empty()) return {};
  return {Code::kInvalidArgument, where + ": graphs for the generations " + printable(known) +
                                      "; name one in the setting 'generation'"};
}

Status read_graphs(const Json& root, const std::string& where, const std::string& directory,
                   Bundle& bundle) {
  EDGE_ASSIGN_OR_RETURN(const Json* graphs, root.get_array("graphs", where));
  const std::string at = where + ": graphs";
  for (const Json& one : graphs->items()) {
    GraphPart part;
    EDGE_ASSIGN_OR_RETURN(part.name, get_text(one, "name", at));
    EDGE_ASSIGN_OR_RETURN(const std::string entry, get_path(one, "entry", at));
    EDGE_ASSIGN_OR_RETURN(part.n_rows, get_size(one, "n_rows", at, kMostRows));
    EDGE_ASSIGN_OR_RETURN(part.n_past, get_size(one, "n_past", at, kMostContext));
    EDGE_ASSIGN_OR_RETURN(part.part, get_size(one, "part", at));
    EDGE_ASSIGN_OR_RETURN(part.inputs, get_texts(one, "inputs", at));
    EDGE_ASSIGN_OR_RETURN(part.outputs, get_texts(one, "outputs", at));
    if (part.n_rows == 0 || part.n_past == 0) return wrong_field(at, "n_rows");
    if (one.find("placement") != nullptr) {
      EDGE_ASSIGN_OR_RETURN(const std::string placement, get_text(one, "placement", at));
      part.is_host = placement == "host";
      if (!part.is_host && placement != "npu") return wrong_field(at, "placement");
    }
    part.path = directory + '/' + (part.is_host ? "" : bundle.folder) + entry;
    bundle.graphs.push_back(std::move(part));
  }
  std::ranges::sort(bundle.graphs, {}, [](const GraphPart& part) {
    return std::tuple(part.n_past, part.n_rows, part.part);
  });
  return {};
}

Status read_settings(const Json& root, const std::string& where, Bundle& bundle) {
  EDGE_ASSIGN_OR_RETURN(const Json* settings, root.get_object("settings", where));
  for (const auto& [name, value] : settings->members()) {
    if (value.kind() != Json::Kind::kString) return wrong_field(where, "settings");
    bundle.settings.emplace(name, value.as_string());
  }
  return {};
}

Status check_file(const std::string& directory, const Json& one, const std::string& where,
                  Bundle& bundle) {
  EDGE_ASSIGN_OR_RETURN(const std::string name, get_path(one, "name", where));
  const auto is_in = [&](const std::string& folder) { return name.starts_with(folder); };
  if (std::ranges::any_of(bundle.other_folders, is_in)) return {};
  EDGE_ASSIGN_OR_RETURN(const int64_t n_bytes, one.get_int("n_bytes", where));
  EDGE_ASSIGN_OR_RETURN(const std::string sha256, get_text(one, "sha256", where));
  EDGE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(directory + '/' + name));
  const std::span<const std::byte> bytes = file.bytes();
  const bool is_same = n_bytes >= 0 && bytes.size() == static_cast<uint64_t>(n_bytes) &&
                       to_hex(edge::sha256(bytes)) == sha256;
  if (!is_same) {
    return {Code::kLeafHash,
            directory + '/' + name + ": is not the file that was written; convert again"};
  }
  if (name == kTokenizer) bundle.facts.tokenizer_sha256 = sha256;
  bundle.file_bytes += bytes.size();
  return {};
}

// Every file that is listed, and that every graph's entry is in one.
Status check_files(const Json& root, const std::string& where, const std::string& directory,
                   Bundle& bundle) {
  EDGE_ASSIGN_OR_RETURN(const Json* files, root.get_array("files", where));
  std::vector<std::string> names;
  for (const Json& one : files->items()) {
    EDGE_RETURN_IF_ERROR(check_file(directory, one, where + ": files", bundle));
    names.push_back(directory + '/' + one.find("name")->as_string() + '/');
  }
  for (const GraphPart& part : bundle.graphs) {
    const bool is_listed = std::ranges::any_of(
        names, [&](const std::string& name) { return name.starts_with(part.path + '/'); });
    if (!is_listed) {
      return {Code::kTensorMissing, where + ": graph " + printable(part.name) +
                                        " is in no file that is listed; convert again"};
    }
  }
  return {};
}

// Between the graphs of one shape: parts 0, 1, ... that together take and give what a step needs.
Status check_step(std::span<const GraphPart> parts, const std::string& where, Bundle& bundle) {
  const std::string shape = where + ": graphs of " + std::to_string(parts.front().n_rows) +
                            " rows and " + std::to_string(parts.front().n_past) + " slots";
  std::vector<std::string> given;
  for (size_t i = 0; i < parts.size(); ++i) {
    const GraphPart& part = parts[i];
    if (part.part != static_cast<int>(i)) {
      return {Code::kTensorMissing, shape + ": part " + std::to_string(i) + " is missing"};
    }
    EDGE_RETURN_IF_ERROR(check_names(part, bundle));
    const bool is_first = i == 0, is_last = i + 1 == parts.size();
    const bool has_ids = has_name(part.inputs, "ids"), has_x = has_name(part.inputs, "x");
    const bool has_logits = has_name(part.outputs, "logits");
    const bool has_hidden = has_name(part.outputs, "hidden");
    if (has_ids == has_x || (has_ids && !is_first) || has_logits == has_hidden ||
        (has_logits && !is_last)) {
      return {Code::kTensorUnexpected, shape + ": what part " + std::to_string(i) +
                                           " takes and gives is no link of a chain"};
    }
    if (is_first) bundle.facts.has_embedding = has_ids;
    if (is_last) bundle.facts.has_head = has_logits;
    for (const std::string& name : part.outputs) {
      if (name != "hidden" && name != "logits") given.push_back(name);
    }
  }
  std::ranges::sort(given);
  const bool is_once = std::ranges::adjacent_find(given) == given.end();
  if (!is_once || given.size() != 2 * bundle.facts.layers.size()) {
    return {Code::kTensorMissing, shape + ": not every layer gives keys and values, once"};
  }
  return {};
}

bool is_of_same_step(const GraphPart& a, const GraphPart& b) {
  return a.n_past == b.n_past && a.n_rows == b.n_rows;
}

// The model's own kernels do what is for a CPU, with the weights of its file: the graphs that
// others would run for it are left out, and the parts behind them take the places before.
Status leave_out_host(const std::string& where, std::vector<GraphPart>& graphs) {
  int n_out = 0;
  for (size_t i = 0; i < graphs.size(); ++i) {
    GraphPart& part = graphs[i];
    if (i == 0 || !is_of_same_step(part, graphs[i - 1])) n_out = 0;
    if (part.is_host) {
      ++n_out;
      const bool has_layers = std::ranges::any_of(
          part.outputs, [](const std::string& name) { return name.starts_with("new_"); });
      const bool is_end = has_name(part.inputs, "ids") || has_name(part.outputs, "logits");
      if (is_end && !has_layers) continue;
      return {Code::kFeatureUnsupported, where + ": graph " + printable(part.name) +
                                             " has layers for the CPU; only the embedding and the "
                                             "head can be there"};
    }
    part.part -= n_out;
  }
  std::erase_if(graphs, [](const GraphPart& part) { return part.is_host; });
  return {};
}

Status check_graphs(const std::string& where, Bundle& bundle) {
  EDGE_RETURN_IF_ERROR(leave_out_host(where, bundle.graphs));
  const std::span<const GraphPart> all = bundle.graphs;
  if (all.empty()) return {Code::kTensorMissing, where + ": there is no graph"};
  bool is_first = true, has_embedding = true, has_head = true;
  for (size_t begin = 0; begin < all.size();) {
    size_t end = begin + 1;
    while (end < all.size() && is_of_same_step(all[end], all[begin])) ++end;
    EDGE_RETURN_IF_ERROR(check_step(all.subspan(begin, end - begin), where, bundle));
    GraphFacts& facts = bundle.facts;
    if (!is_first && (facts.has_embedding != has_embedding || facts.has_head != has_head)) {
      return {Code::kTensorUnexpected, where +
                                           ": some graphs have an embedding or a head, others "
                                           "not"};
    }
    is_first = false;
    has_embedding = facts.has_embedding;
    has_head = facts.has_head;
    facts.capacity = std::max(facts.capacity, all[begin].n_past);
    const int n_rows = all[begin].n_rows;
    if (n_rows <= kMostDraftRows) facts.draft_rows = std::max(facts.draft_rows, n_rows);
    begin = end;
  }
  return {};
}

Status parse(const Json& root, const std::string& where, const std::string& directory,
             const std::string& generation, Bundle& bundle) {
  EDGE_ASSIGN_OR_RETURN(const int64_t version, root.get_int("version", where));
  if (version != kVersion) {
    return {Code::kVersionUnsupported, where + ": version " + std::to_string(version) +
                                           ", this edgellm reads " + std::to_string(kVersion)};
  }
  EDGE_ASSIGN_OR_RETURN(bundle.facts.target, get_text(root, "target", where));
  EDGE_RETURN_IF_ERROR(read_model(root, where, bundle));
  EDGE_RETURN_IF_ERROR(read_generations(root, where, generation, bundle));
  EDGE_RETURN_IF_ERROR(read_graphs(root, where, directory, bundle));
  EDGE_RETURN_IF_ERROR(read_settings(root, where, bundle));
  EDGE_RETURN_IF_ERROR(check_graphs(where, bundle));
  return check_files(root, where, directory, bundle);
}

}  // namespace

int Bundle::most_rows() const {
  int most = 0;
  for (const GraphPart& part : graphs) most = std::max(most, part.n_rows);
  return most;
}

Result<Bundle> read_bundle(const std::string& directory, const std::string& generation) {
  const std::string path = directory + "/bundle.json";
  EDGE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path));
  if (file.bytes().size() > kMostDescriptionBytes) return {Code::kHeaderTooLarge, path};
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  Result<Json> root = Json::parse(text);
  if (!root.is_ok()) return root.status().with_context(path);
  Bundle bundle;
  EDGE_RETURN_IF_ERROR(parse(root.value(), path, directory, generation, bundle));
  return bundle;
}

}  // namespace edge::npu
