#include "backends/cpu/stored_keys.h"

#include "backends/cpu/hadamard.h"

namespace edge {

StoredKeys::StoredKeys(const KvLayerLayout& kv, const KeyBalance& balance) : kv_(kv) {
  if (!kv.balances_keys) return;
  mean_ = balance.mean->as_f32();
  scale_ = balance.scale->as_f32();
}

void StoredKeys::meet(float* queries, int n_heads) const {
  const int heads_per_kv = n_heads / kv_.n_kv_heads;
  for (int head = 0; mean_ != nullptr && head < n_heads; ++head) {
    const float* scale = scale_ + head / heads_per_kv * kv_.head_dim;
    float* query = queries + head * kv_.head_dim;
    for (int i = 0; i < kv_.head_dim; ++i) query[i] /= scale[i];
  }
  if (kv_.mixes_keys) hadamard(queries, n_heads, kv_.head_dim);
}

void StoredKeys::enter(int kv_head, float* key) const {
  const int at = kv_head * kv_.head_dim;
  for (int i = 0; mean_ != nullptr && i < kv_.head_dim; ++i) {
    key[i] = (key[i] - mean_[at + i]) * scale_[at + i];
  }
  if (kv_.mixes_keys) hadamard(key, 1, kv_.head_dim);
}

void StoredKeys::leave(int kv_head, float* key) const {
  if (kv_.mixes_keys) hadamard(key, 1, kv_.head_dim);  // its own inverse
  const int at = kv_head * kv_.head_dim;
  for (int i = 0; mean_ != nullptr && i < kv_.head_dim; ++i) {
    key[i] = key[i] / scale_[at + i] + mean_[at + i];
  }
}

}  // namespace edge
