#include "backends/cpu/kv_editor.h"

#include <algorithm>
#include <atomic>

#include "backends/cpu/stored_keys.h"
#include "base/exact_math.h"
#include "base/thread_pool.h"
#include "kernels/attention.h"
#include "kernels/kv_slot.h"
#include "kernels/variants.h"

namespace edge {
namespace {

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// key: [head_dim]. Back by the angles, halves convention.
void turn_back(const std::vector<float>& cos, const std::vector<float>& sin, float* key) {
  const size_t half = cos.size();
  for (size_t i = 0; i < half; ++i) {
    const float x1 = key[i], x2 = key[i + half];
    key[i] = x1 * cos[i] + x2 * sin[i];
    key[i + half] = x2 * cos[i] - x1 * sin[i];
  }
}

}  // namespace

KvEditor::KvEditor(const KernelTable& kernels, int n_threads)
    : kernels_(kernels), ops_(*kernels.elementwise), n_threads_(n_threads) {}

bool KvEditor::turn_keys(const KvSlotRange& slots, const KvLayerLayout& kv, const KeyTurn& turn) {
  const auto half = static_cast<size_t>(turn.n_rope / 2);
  std::vector<float> cos(half), sin(half);
  ops_.rope_angles(turn.inv_freq, turn.n_rope / 2, turn.n_positions, 1.0f, cos.data(), sin.data());
  std::byte* const* pages = slots.view.tables[kv.group].pages;
  const StoredKeys stored(kv, turn.balance);
  std::atomic<bool> is_finite{true};
  parallel_for(n_threads_, slots.n, [&](int64_t unit, int) {
    const int number = slots.first + static_cast<int>(unit);
    if (pages[number / kPageTokens] == nullptr) return;
    float key[kMaxHeadDim];
    for (int kv_head = 0; kv_head < kv.n_kv_heads; ++kv_head) {
      const KvSlot slot = kv.slot(pages[number / kPageTokens], number, kv_head);
      load_key(slot, key);
      stored.leave(kv_head, key);
      turn_back(cos, sin, key);
      stored.enter(kv_head, key);
      if (!kernels_.attention->store_key(slot, key)) is_finite.store(false);
    }
  });
  return is_finite.load();
}

// In the format of another page.
bool KvEditor::store_again(const KvSlot& from, const KvSlot& to) const {
  float key[kMaxHeadDim], value[kMaxHeadDim];
  load_key(from, key);
  load_value(from, value);
  return kernels_.attention->store_key(to, key) && kernels_.attention->store_value(to, value);
}

bool KvEditor::keep_slots(const KvView& view, const KvLayerLayout& kv, int kv_head,
                          std::span<const int32_t> kept) {
  std::byte* const* pages = view.tables[kv.group].pages;
  bool is_finite = true;
  for (size_t i = 0; i < kept.size(); ++i) {
    const auto to = static_cast<int>(i);
    if (kept[i] == to) continue;
    const KvSlot source = kv.slot(pages[kept[i] / kPageTokens], kept[i], kv_head);
    const KvSlot target = kv.slot(pages[to / kPageTokens], to, kv_head);
    if (to >= kFirstTokens || kept[i] < kFirstTokens || !kv.has_own_first_pages()) {
      move_slot(source, target);
    } else {
      is_finite &= store_again(source, target);
    }
  }
  return is_finite;
}

void KvEditor::attention_shares(std::span<const RowInput> rows, const float* q,
                                const AttentionShape& shape, const KvLayerLayout& kv,
                                float* shares) {
  const int heads_per_kv = shape.n_heads / shape.n_kv_heads;
  const int64_t q_stride = round_up(int64_t{shape.n_heads} * shape.head_dim, 16);
  const auto n_slots = static_cast<size_t>(rows.back().slot) + 1;
  const KvTable& table = rows.front().kv.tables[kv.group];
  parallel_for(n_threads_, shape.n_kv_heads, [&](int64_t kv_head, int) {
    Scratch scratch;
    for (size_t row = 0; row < rows.size(); ++row) {
      for (int head = 0; head < heads_per_kv; ++head) {
        scratch.queries.push_back(q + static_cast<int64_t>(row) * q_stride +
                                  (kv_head * heads_per_kv + head) * int64_t{shape.head_dim});
        scratch.n_visible.push_back(rows[row].slot + 1);
      }
    }
    scratch.scores.resize(kBlockQueries * n_slots);
    scratch.keys.resize(static_cast<size_t>(shape.head_dim * kPageTokens));
    scratch.key.resize(static_cast<size_t>(shape.head_dim));
    scratch.parts.resize(n_slots);
    scratch.sums.assign(n_slots, 0.0);
    share_head(shape, kv, table, static_cast<int>(kv_head), scratch);
    std::transform(scratch.sums.begin(), scratch.sums.end(),
                   shares + kv_head * static_cast<int64_t>(n_slots),
                   [](double sum) { return static_cast<float>(sum); });
  });
}

void KvEditor::share_head(const AttentionShape& shape, const KvLayerLayout& kv,
                          const KvTable& table, int kv_head, Scratch& scratch) const {
  const size_t n_slots = scratch.sums.size();
  for (size_t first = 0; first < scratch.queries.size(); first += kBlockQueries) {
    const size_t n = std::min<size_t>(kBlockQueries, scratch.queries.size() - first);
    score_block(shape, kv, table, kv_head, first, n, scratch);
    for (size_t i = 0; i < n; ++i) {
      float* scores = scratch.scores.data() + i * n_slots;
      const int n_visible = scratch.n_visible[first + i];
      if (shape.softcap > 0) kernels_.variants->softcap(scores, n_visible, shape.softcap);
      add_shares(scores, n_visible, scratch);
    }
  }
}

// keys[dim][slot] of the page that begins with slot0, of which n_keys are used.
void KvEditor::load_page(const KvLayerLayout& kv, std::byte* page, int kv_head, int slot0,
                         int n_keys, Scratch& scratch) {
  for (int slot = 0; slot < n_keys; ++slot) {
    load_key(kv.slot(page, slot0 + slot, kv_head), scratch.key.data());
    for (int dim = 0; dim < kv.head_dim; ++dim) {
      scratch.keys[static_cast<size_t>(dim * kPageTokens + slot)] =
          scratch.key[static_cast<size_t>(dim)];
    }
  }
}

// Scores of a block of queries with all slots. A score runs over head_dim in order.
void KvEditor::score_block(const AttentionShape& shape, const KvLayerLayout& kv,
                           const KvTable& table, int kv_head, size_t first_query, size_t n_queries,
                           Scratch& scratch) const {
  const size_t n_slots = scratch.sums.size();
  for (size_t slot0 = 0; slot0 < n_slots; slot0 += kPageTokens) {
    const size_t n = std::min<size_t>(kPageTokens, n_slots - slot0);
    load_page(kv, table.pages[slot0 / kPageTokens], kv_head, static_cast<int>(slot0),
              static_cast<int>(n), scratch);
    for (size_t i = 0; i < n_queries; ++i) {
      const float* query = scratch.queries[first_query + i];
      float sums[kPageTokens] = {};
      for (int dim = 0; dim < kv.head_dim; ++dim) {
        const float* keys = scratch.keys.data() + dim * kPageTokens;
        for (int slot = 0; slot < kPageTokens; ++slot) sums[slot] += query[dim] * keys[slot];
      }
      float* out = scratch.scores.data() + i * n_slots + slot0;
      for (size_t slot = 0; slot < n; ++slot) out[slot] = sums[slot] * shape.scale;
    }
  }
}

// sums += softmax(scores) over the first n_visible slots.
void KvEditor::add_shares(const float* scores, int n_visible, Scratch& scratch) const {
  const float top = *std::max_element(scores, scores + n_visible);
  double total = 0;
  double* parts = scratch.parts.data();
  for (int slot = 0; slot < n_visible; ++slot) {
    parts[slot] = exp_nonpositive(static_cast<double>(scores[slot]) - static_cast<double>(top));
  }
  for (int slot = 0; slot < n_visible; ++slot) total += parts[slot];
  for (int slot = 0; slot < n_visible; ++slot) {
    scratch.sums[static_cast<size_t>(slot)] += parts[slot] / total;
  }
}

}  // namespace edge
