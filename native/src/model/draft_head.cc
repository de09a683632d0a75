#include "model/draft_head.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>

#include "format/json.h"

namespace edge {

namespace {

constexpr std::string_view kBlob = "draft_head";
constexpr std::string_view kVersionKey = "draft_head.version";
constexpr std::string_view kVersion = "1";
constexpr std::string_view kIds = "ids";

Status refuse(Code code, const std::string& why) {
  return {code, std::string(kBlob) + ": " + why + "; make the head again"};
}

Status check_version(const EdgeFile& file) {
  const std::string_view version = file.metadata(kVersionKey);
  if (version == kVersion) return {};
  return {Code::kVersionUnsupported, std::string(kBlob) + ": version " + printable(version) +
                                         ", this reader knows '1'; upgrade edgellm, or make the "
                                         "head again"};
}

// What the two must share for the head to take the model's embedding, hidden states and tables.
Status check_spec(const ModelSpec& spec, const ModelSpec& model) {
  const bool is_head = spec.layers.size() == 1 && spec.layers[0].n_experts == 0 &&
                       spec.layers[0].window == 0 && !spec.tied_head && !spec.headless &&
                       spec.n_positions == 0;
  const bool is_for_model = spec.d_model == model.d_model && spec.n_vocab <= model.n_vocab &&
                            spec.norm == model.norm && spec.n_rope == model.n_rope &&
                            spec.n_ctx_original == model.n_ctx_original &&
                            (!spec.uses_local_rope() || model.uses_local_rope());
  if (is_head && is_for_model) return {};
  return refuse(Code::kSpecInvalid, "is none, or for another model");
}

Result<std::vector<int32_t>> read_ids(const EdgeFile& file, const ModelSpec& spec,
                                      const ModelSpec& model) {
  const TensorEntry* entry = file.find(kIds);
  if (entry == nullptr) return refuse(Code::kTensorMissing, "no tensor 'ids'");
  const auto n = static_cast<size_t>(spec.n_vocab);
  if (entry->tensor.format != Format::kU8 ||
      entry->tensor.n_cols != static_cast<int64_t>(n * sizeof(int32_t)) ||
      entry->tensor.n_bytes < n * sizeof(int32_t)) {
    return refuse(Code::kTensorShape, "'ids' does not hold " + std::to_string(n) + " of them");
  }
  std::vector<int32_t> ids(n);
  std::memcpy(ids.data(), entry->tensor.data, n * sizeof(int32_t));
  const bool ascends =
      std::adjacent_find(ids.begin(), ids.end(), std::greater_equal<int32_t>()) == ids.end();
  if (ascends && ids.front() >= 0 && ids.back() < model.n_vocab) return ids;
  return refuse(Code::kTokenOutOfRange,
                "its ids do not ascend within 0 to " + std::to_string(model.n_vocab - 1));
}

}  // namespace

Result<std::unique_ptr<DraftHead>> DraftHead::open(const EdgeFile& model_file,
                                                   const ModelSpec& model_spec,
                                                   const Weights& model_weights) {
  const TensorEntry* entry = model_file.find(kBlob);
  if (entry == nullptr) return std::unique_ptr<DraftHead>();
  if (entry->tensor.format != Format::kU8) {
    return refuse(Code::kTensorFormat, "is not a blob");
  }
  std::unique_ptr<DraftHead> head(new DraftHead);
  const std::span<const std::byte> bytes(entry->tensor.data,
                                         static_cast<size_t>(entry->tensor.n_cols));
  EDGE_ASSIGN_OR_RETURN(head->file_, EdgeFile::from_bytes(bytes, std::string(kBlob)));
  EDGE_RETURN_IF_ERROR(check_version(*head->file_));
  EDGE_ASSIGN_OR_RETURN(head->spec_, ModelSpec::from_json(head->file_->metadata("edgellm.spec")));
  EDGE_RETURN_IF_ERROR(check_spec(head->spec_, model_spec));
  EDGE_ASSIGN_OR_RETURN(head->ids_, read_ids(*head->file_, head->spec_, model_spec));
  EDGE_ASSIGN_OR_RETURN(head->weights_,
                        Weights::bind_head(*head->file_, head->spec_, model_weights));
  return head;
}

}  // namespace edge
