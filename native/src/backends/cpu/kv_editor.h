// Work on the pages of a sequence outside a step's own reads and writes: turning keys to other
// positions, moving tokens together, and how much attention each slot gets. Everything in plain f32
// and f64 in a fixed order, so that the bits depend on neither threads nor instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "kernels/elementwise.h"
#include "kernels/kernels.h"

namespace edge {

class KvEditor {
 public:
  // `kernels` must outlive the editor.
  KvEditor(const KernelTable& kernels, int n_threads);

  // The three below are the ops of Backend with these names.
  void attention_shares(std::span<const RowInput> rows, const float* q, const AttentionShape& shape,
                        const KvLayerLayout& kv, float* shares);
  bool turn_keys(const KvSlotRange& slots, const KvLayerLayout& kv, const KeyTurn& turn);
  bool keep_slots(const KvView& view, const KvLayerLayout& kv, int kv_head,
                  std::span<const int32_t> kept);

 private:
  // Queries that meet a page of keys together while it is in f32.
  static constexpr int kBlockQueries = 32;
  // What one kv head needs: queries of a block, their scores and a page of keys.
  struct Scratch {
    std::vector<const float*> queries;
    std::vector<int> n_visible;
    std::vector<float> scores;  // [kBlockQueries][n_slots]
    std::vector<float> keys;    // [head_dim][16]
    std::vector<float> key;     // [head_dim]
    std::vector<double> parts;  // [n_slots]
    std::vector<double> sums;   // [n_slots]
  };
  void share_head(const AttentionShape& shape, const KvLayerLayout& kv, const KvTable& table,
                  int kv_head, Scratch& scratch) const;
  static void load_page(const KvLayerLayout& kv, std::byte* page, int kv_head, int slot0,
                        int n_keys, Scratch& scratch);
  bool store_again(const KvSlot& from, const KvSlot& to) const;
  void score_block(const AttentionShape& shape, const KvLayerLayout& kv, const KvTable& table,
                   int kv_head, size_t first_query, size_t n_queries, Scratch& scratch) const;
  void add_shares(const float* scores, int n_visible, Scratch& scratch) const;

  const KernelTable& kernels_;
  const ElementwiseKernels& ops_;
  int n_threads_;
};

}  // namespace edge
