// How keys stand in the pages of a layer, and queries that meet them: balanced, then mixed, either
// or neither. Scores stay what they were but for rounding, and for a number of each query that
// softmax does not see; what is rounded has no constant part, and no channel much larger than the
// others. Balance: smooth K of SageAttention (Zhang et al. 2024, arXiv:2410.02367) and scales as in
// SmoothQuant (Xiao et al. 2022, arXiv:2211.10438), both measured by the converter.
#pragma once

#include "backends/backend.h"

namespace edge {

// Plain f32 in a fixed order: the same bits whatever the instruction set.
class StoredKeys {
 public:
  // Neither is kept longer than the op it is made for.
  StoredKeys(const KvLayerLayout& kv, const KeyBalance& balance);

  // queries: [n_heads][head_dim] behind the rotary turn, in place; n_heads / n_kv_heads in a row
  // share a kv head.
  void meet(float* queries, int n_heads) const;
  // key: [head_dim] behind the rotary turn, in place.
  void enter(int kv_head, float* key) const;
  // The inverse, but for rounding.
  void leave(int kv_head, float* key) const;

 private:
  const KvLayerLayout& kv_;
  const float* mean_ = nullptr;  // [n_kv_heads][head_dim]; null: keys are not balanced
  const float* scale_ = nullptr;
};

}  // namespace edge
