#include "open_all.h"

#include "format/edge_file.h"
#include "format/json.h"
#include "format/verifier.h"
#include "model/adapter.h"
#include "model/draft_head.h"
#include "model/spec.h"
#include "model/weights.h"
#include "tokenizer/tokenizer.h"

namespace edge::fuzz {

namespace {

// Reads a byte of every tensor, so that a bad range is a fault here and not in some kernel.
unsigned touch(const EdgeFile& file) {
  unsigned sum = 0;
  for (const TensorEntry& entry : file.tensors()) {
    sum += std::to_integer<unsigned>(entry.tensor.data[0]);
    sum += std::to_integer<unsigned>(entry.tensor.data[entry.tensor.n_bytes - 1]);
  }
  return sum;
}

// The model of tests/tiny_model.py, as far as an adapter asks.
ModelSpec tiny_spec() {
  ModelSpec spec;
  spec.arch = "llama";
  spec.d_model = 40;
  spec.layers.assign(2, {.n_heads = 4, .n_kv_heads = 2, .head_dim = 16, .d_ffn = 56});
  return spec;
}

// What a load of a model or of an adapter makes of the file. A seed of the container alone has none
// of it.
Status load(const EdgeFile& file) {
  if (is_adapter_spec(file.metadata("edgellm.spec"))) {
    return Adapter::bind(file, tiny_spec()).status();
  }
  if (file.find("token_embd") != nullptr) {
    EDGE_ASSIGN_OR_RETURN(const ModelSpec spec,
                          ModelSpec::from_json(file.metadata("edgellm.spec")));
    EDGE_ASSIGN_OR_RETURN(const Weights weights, Weights::bind(file, spec));
    EDGE_RETURN_IF_ERROR(DraftHead::open(file, spec, weights).status());
  }
  if (const TensorEntry* blob = file.find("tokenizer")) {
    EDGE_RETURN_IF_ERROR(Tokenizer::create({blob->tensor.data, blob->tensor.n_bytes}).status());
  }
  return {};
}

}  // namespace

Status open_all(std::span<const std::byte> bytes) {
  EDGE_ASSIGN_OR_RETURN(const std::shared_ptr<const EdgeFile> file,
                        EdgeFile::from_bytes(bytes, "mutant"));
  EDGE_RETURN_IF_ERROR(Verifier::start(file, VerifyMode::kAlways, 1).status());
  volatile unsigned sink = touch(*file);
  static_cast<void>(sink);
  EDGE_RETURN_IF_ERROR(Json::parse(file->metadata("edgellm.spec")).status());
  return load(*file);
}

}  // namespace edge::fuzz
