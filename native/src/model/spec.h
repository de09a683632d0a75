// ModelSpec: a model as data. Mirrors converters/spec.py; the JSON text travels in the file as
// "edgellm.spec" and tests/test_spec_mirror.py keeps the two equal. Layers may differ (pruning).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backends/kv_layout.h"
#include "base/status.h"

namespace edge {

struct LayerSpec {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int d_ffn = 0;
};

struct ModelSpec {
  std::string arch;  // family, for people only ("llama"); never switched on
  int n_vocab = 0;
  int d_model = 0;
  int n_ctx_train = 0;  // positions the model was trained for
  float norm_eps = 0;
  bool tied_head = false;  // the head is the embedding table
  int n_rope = 0;          // rotated dimensions per head; inv_freq has n_rope / 2 entries
  float rope_factor = 1;   // multiplies cos and sin
  int32_t bos_id = -1;     // -1: none
  std::vector<int32_t> eos_ids;
  std::vector<LayerSpec> layers;

  // Parses and range-checks; every value is bounded before anything is allocated from it.
  static Result<ModelSpec> from_json(std::string_view text);
  KvLayout kv_layout() const;
};

}  // namespace edge
