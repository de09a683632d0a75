#include "backends/cpu/kv_editor.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/exact_math.h"
#include "base/thread_pool.h"
#include "kernels/attention.h"
#include "kernels/variants.h"

namespace edge {
namespace {

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

uint16_t* keys_of(std::byte* page, const KvLayerLayout& kv, int kv_head) {
  return reinterpret_cast<uint16_t*>(page + kv.key_offset(kv_head));
}

uint16_t* values_of(std::byte* page, const KvLayerLayout& kv, int kv_head) {
  return reinterpret_cast<uint16_t*>(page + kv.value_offset(kv_head));
}

// keys: f32 [n_rope][32] of one page. Back by the angles, halves convention.
void turn_back(const std::vector<float>& cos, const std::vector<float>& sin, float* keys) {
  const size_t half = cos.size();
  for (size_t i = 0; i < half; ++i) {
    float* first = keys + i * kPageTokens;
    float* second = keys + (i + half) * kPageTokens;
    for (int slot = 0; slot < kPageTokens; ++slot) {
      const float x1 = first[slot], x2 = second[slot];
      first[slot] = x1 * cos[i] + x2 * sin[i];
      second[slot] = x2 * cos[i] - x1 * sin[i];
    }
  }
}

// One token's key and value of one head.
void move_token(std::byte* from_page, int from, std::byte* to_page, int to, const KvLayerLayout& kv,
                int kv_head) {
  const uint16_t* from_keys = keys_of(from_page, kv, kv_head) + from;
  uint16_t* to_keys = keys_of(to_page, kv, kv_head) + to;
  for (int i = 0; i < kv.head_dim; ++i) to_keys[i * kPageTokens] = from_keys[i * kPageTokens];
  std::memcpy(values_of(to_page, kv, kv_head) + to * kv.head_dim,
              values_of(from_page, kv, kv_head) + from * kv.head_dim,
              static_cast<size_t>(kv.head_dim) * sizeof(uint16_t));
}

}  // namespace

KvEditor::KvEditor(const KernelTable& kernels, int n_threads)
    : kernels_(kernels), ops_(*kernels.elementwise), n_threads_(n_threads) {}

void KvEditor::turn_keys(const KvPageRange& pages, const KvLayerLayout& kv, const KeyTurn& turn) {
  const auto half = static_cast<size_t>(turn.n_rope / 2);
  std::vector<float> cos(half), sin(half);
  ops_.rope_angles(turn.inv_freq, turn.n_rope / 2, turn.n_positions, 1.0f, cos.data(), sin.data());
  const KvTable& table = pages.view.tables[kv.group];
  parallel_for(n_threads_, int64_t{pages.n_pages} * kv.n_kv_heads, [&](int64_t unit, int) {
    const auto number = pages.first_page + unit / kv.n_kv_heads;
    if (table.pages[number] == nullptr) return;
    uint16_t* stored = keys_of(table.pages[number], kv, static_cast<int>(unit % kv.n_kv_heads));
    std::array<float, size_t{kMaxHeadDim} * kPageTokens> keys;
    const int64_t n = int64_t{turn.n_rope} * kPageTokens;
    ops_.load_f16_row(stored, n, keys.data());
    turn_back(cos, sin, keys.data());
    ops_.store_f16_row(keys.data(), n, stored);
  });
}

void KvEditor::keep_slots(const KvView& view, const KvLayerLayout& kv, int kv_head,
                          std::span<const int32_t> kept) {
  std::byte* const* pages = view.tables[kv.group].pages;
  for (size_t i = 0; i < kept.size(); ++i) {
    const auto to = static_cast<int>(i);
    const int from = kept[i];
    if (from == to) continue;
    move_token(pages[from / kPageTokens], from % kPageTokens, pages[to / kPageTokens],
               to % kPageTokens, kv, kv_head);
  }
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

// Scores of a block of queries with all slots. A score runs over head_dim in order.
void KvEditor::score_block(const AttentionShape& shape, const KvLayerLayout& kv,
                           const KvTable& table, int kv_head, size_t first_query, size_t n_queries,
                           Scratch& scratch) const {
  const size_t n_slots = scratch.sums.size();
  for (size_t slot0 = 0; slot0 < n_slots; slot0 += kPageTokens) {
    ops_.load_f16_row(keys_of(table.pages[slot0 / kPageTokens], kv, kv_head),
                      int64_t{kv.head_dim} * kPageTokens, scratch.keys.data());
    const size_t n = std::min<size_t>(kPageTokens, n_slots - slot0);
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
