// DraftHead: the small model in a model's file that guesses what it says next: one layer over the
// token just chosen and the hidden state of the row that chose it (EAGLE, arXiv:2401.15077). A
// Decoder runs it: its rows have RowInput::hidden, and its logits are those of ids(), not of the
// model's vocabulary. Views into the model's file, which must outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "format/edge_file.h"
#include "model/spec.h"
#include "model/weights.h"

namespace edge {

class DraftHead {
 public:
  // Null where the file has none. A head is a `.edge` file in the blob "draft_head", checked as
  // any; kVersionUnsupported for a newer one, kSpecInvalid for one of another model,
  // kTokenOutOfRange for ids that do not ascend within the model's vocabulary.
  static Result<std::unique_ptr<DraftHead>> open(const EdgeFile& model_file,
                                                 const ModelSpec& model_spec,
                                                 const Weights& model_weights);

  const ModelSpec& spec() const { return spec_; }
  const Weights& weights() const { return weights_; }
  // [spec().n_vocab]: the model's id of each token that can be drafted, ascending.
  std::span<const int32_t> ids() const { return ids_; }

 private:
  DraftHead() = default;
  std::shared_ptr<const EdgeFile> file_;
  ModelSpec spec_;
  Weights weights_;
  std::vector<int32_t> ids_;
};

}  // namespace edge
