// A model made of hashes: what a group keeps of a token is its position and, in the first group,
// its id, in every other one the hash of what the group before sees there; the logits of a row are
// the hash of what the last group sees and how far back it stands. Any mistake of a session in
// pages, slots, positions, order or cuts changes them. A group is a layer with one kv head; the
// first pages of all but the first group and of states are in a format of their own.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "kernels/elementwise.h"
#include "kernels/kernels.h"
#include "runtime/kv_cache.h"
#include "runtime/step_model.h"

namespace edge::test {

constexpr int kVocab = 11;
constexpr int kHidden = 3;  // the first of the logits

// What stands in a slot.
struct Kept {
  int32_t value = 0;
  int32_t position = 0;
};
constexpr size_t kPageBytes = kPageTokens * sizeof(Kept);

inline uint32_t hash_of(uint32_t hash, int32_t value) {
  return (hash ^ static_cast<uint32_t>(value)) * 16777619u;
}

inline int first_seen(int window, int position) {
  return window > 0 ? std::max(0, position - window + 1) : 0;
}

inline uint32_t hash_of(uint32_t hash, const Kept& seen, int32_t position) {
  return hash_of(hash_of(hash, seen.value), position - seen.position);
}

// How much attention a token gets that is seen: any number that depends on it.
inline float share_of(const Kept& seen) {
  return static_cast<float>(hash_of(2166136261u, seen.value) >> 8 & 0xFF);
}

// The n numbers that are made of a hash.
inline void put(uint32_t hash, int n, float* out) {
  for (int j = 0; j < n; ++j) *out++ = static_cast<float>((hash >> j) & 0xFFFF);
}

// Of all logits.
inline TopTokens top_of(const std::vector<float>& logits) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto logit = [&](int32_t id) { return logits[static_cast<size_t>(id)]; };
  std::ranges::stable_sort(ids, std::ranges::greater(), logit);
  TopTokens top;
  top.n = static_cast<int32_t>(std::min<size_t>(ids.size(), kMostTopTokens));
  for (int i = 0; i < top.n; ++i) {
    top.ids[i] = ids[static_cast<size_t>(i)];
    top.logits[i] = logit(top.ids[i]);
  }
  top.mass =
      active_kernels().elementwise->exp_sum(logits.data(), static_cast<int64_t>(logits.size()),
                                            static_cast<double>(top.logits[0]), 1.0, nullptr);
  return top;
}

class HashModel final : public StepModel {
 public:
  // A window for each group, 0: none, -n: n tokens of a recurrent layer's state.
  explicit HashModel(const std::vector<int>& windows = {0}) {
    for (const int window : windows) {
      windows_.push_back(std::abs(window));
      is_state_.push_back(window < 0);
    }
  }

  int n_vocab() const override { return kVocab; }
  int d_model() const override { return kHidden; }
  int max_rows() const override { return 48; }
  bool has_head() const override { return !is_headless; }
  bool has_top() const override { return gives_top; }
  int n_kv_heads() const override { return static_cast<int>(windows_.size()); }
  int max_positions() const override { return n_positions; }
  // Group g has pages of g + 1 times kPageBytes, the first ones twice as large from the second on
  // but for states.
  std::vector<KvGroup> groups() const {
    std::vector<KvGroup> groups;
    for (size_t group = 0; group < windows_.size(); ++group) {
      const size_t page_bytes = kPageBytes * (group + 1);
      groups.push_back({.window = windows_[group],
                        .page_bytes = page_bytes,
                        .first_page_bytes = has_other(group) ? 2 * page_bytes : 0,
                        .is_state = is_state_[group]});
    }
    return groups;
  }

  Status step(std::span<const RowInput> rows, const StepOutputs& outputs,
              const StopCheck& should_stop) override {
    if (should_stop && should_stop()) return {Code::kCancelled, "stopped"};
    if (n_steps_until_failure-- == 0) return {Code::kNumeric, "made to fail"};
    step_rows.push_back(static_cast<int>(rows.size()));
    std::vector<uint32_t> hashes;
    const auto n_slots = static_cast<size_t>(rows.back().slot) + 1;
    for (const RowInput& row : rows) {
      int32_t value = row.token;
      uint32_t hash = 0;
      for (size_t group = 0; group < windows_.size(); ++group) {
        const KvTable& table = row.kv.tables[group];
        const int first = first_seen(windows_[group], row.n_seen() - 1);
        if (row.slot / kPageTokens >= table.n_pages) return {Code::kInvalidArgument, "no page"};
        for (int page = first / kPageTokens; page <= row.slot / kPageTokens; ++page) {
          if (table.pages[page] == nullptr) return {Code::kInvalidArgument, "a page is gone"};
        }
        write(table, group, row.slot, {value, row.position});
        hash = 2166136261u;
        for (int place = first; place < row.n_seen(); ++place) {
          const int slot = slot_of(row, place);
          const Kept seen = read(table, group, slot);
          hash = hash_of(hash, seen, row.position);
          if (outputs.shares == nullptr) continue;
          outputs.shares[group * n_slots + static_cast<size_t>(slot)] += share_of(seen);
        }
        value = static_cast<int32_t>(hash);
      }
      hashes.push_back(hash);
    }
    for (size_t i = 0; i < outputs.rows.size(); ++i) {
      const uint32_t hash = hashes[static_cast<size_t>(outputs.rows[i])];
      if (outputs.tops.empty() || outputs.tops[i] == nullptr) {
        put(hash, kVocab, outputs.logits[i]);
        continue;
      }
      if (outputs.logits[i] != nullptr) return {Code::kInvalidArgument, "both are wanted"};
      std::vector<float> logits(kVocab);
      put(hash, kVocab, logits.data());
      *outputs.tops[i] = top_of(logits);
      ++n_tops;
    }
    for (size_t i = 0; i < outputs.row_hidden.size(); ++i) {
      if (outputs.row_hidden[i] == nullptr) continue;
      put(hashes[static_cast<size_t>(outputs.rows[i])], kHidden, outputs.row_hidden[i]);
    }
    for (size_t i = 0; i < outputs.hidden_rows.size(); ++i) {
      put(hashes[static_cast<size_t>(outputs.hidden_rows[i])], kHidden, outputs.hidden[i]);
    }
    return Status::ok();
  }

  Status turn_keys(const KvSlotRange& slots, int n_by) override {
    for (size_t group = 0; group < windows_.size(); ++group) {
      const KvTable& table = slots.view.tables[group];
      for (int slot = slots.first; slot < slots.first + slots.n; ++slot) {
        if (table.pages[slot / kPageTokens] == nullptr) continue;
        Kept kept = read(table, group, slot);
        kept.position -= n_by;
        write(table, group, slot, kept);
      }
    }
    return Status::ok();
  }

  Status keep_slots(const KvView& view, std::span<const std::vector<int32_t>> kept) override {
    for (size_t group = 0; group < windows_.size(); ++group) {
      const KvTable& table = view.tables[group];
      int to = 0;
      for (const int32_t from : kept[group]) write(table, group, to++, read(table, group, from));
    }
    return Status::ok();
  }

  bool has_own_first_pages() const override { return windows_.size() > 1 && has_other(1); }

  Status move_slot(const KvView& view, int from, int to) override {
    ++n_moved_slots;
    for (size_t group = 0; group < windows_.size(); ++group) {
      const KvTable& table = view.tables[group];
      if (is_other(group, from) != is_other(group, to)) {
        return {Code::kInvalidArgument, "moved to a page of another format"};
      }
      write(table, group, to, read(table, group, from));
    }
    return Status::ok();
  }

  // Of the last of these tokens, without pages.
  std::vector<float> expected(std::span<const int32_t> ids) const {
    std::vector<int32_t> values(ids.begin(), ids.end());
    std::vector<uint32_t> hashes(ids.size());
    for (const int window : windows_) {
      for (size_t i = 0; i < ids.size(); ++i) {
        hashes[i] = 2166136261u;
        const auto first = static_cast<size_t>(first_seen(window, static_cast<int>(i)));
        for (size_t j = first; j <= i; ++j) {
          const Kept seen{values[j], static_cast<int32_t>(j)};
          hashes[i] = hash_of(hashes[i], seen, static_cast<int32_t>(i));
        }
      }
      for (size_t i = 0; i < ids.size(); ++i) values[i] = static_cast<int32_t>(hashes[i]);
    }
    std::vector<float> logits(kVocab);
    put(hashes.back(), kVocab, logits.data());
    return logits;
  }

  bool gives_top = false;
  int n_tops = 0;
  std::vector<int> step_rows;  // how the session cut its queue
  int n_moved_slots = 0;
  int n_steps_until_failure = -1;
  int n_positions = 1 << 20;
  bool is_headless = false;

 private:
  static int slot_of(const RowInput& row, int place) {
    if (row.tail.empty() || place < row.tail.front()) return place;
    return row.tail[static_cast<size_t>(place - row.tail.front())];
  }
  // Tokens stand twice as far apart in first pages of their own format, and upside down.
  bool has_other(size_t group) const { return group > 0 && !is_state_[group]; }
  bool is_other(size_t group, int slot) const { return has_other(group) && slot < kFirstTokens; }
  std::byte* place(const KvTable& table, size_t group, int slot) const {
    const size_t each = is_other(group, slot) ? 2 * sizeof(Kept) : sizeof(Kept);
    return table.pages[slot / kPageTokens] + static_cast<size_t>(slot % kPageTokens) * each;
  }
  Kept turned(size_t group, int slot, const Kept& kept) const {
    return is_other(group, slot) ? Kept{~kept.value, ~kept.position} : kept;
  }
  Kept read(const KvTable& table, size_t group, int slot) const {
    Kept kept;
    std::memcpy(&kept, place(table, group, slot), sizeof kept);
    return turned(group, slot, kept);
  }
  void write(const KvTable& table, size_t group, int slot, const Kept& kept) const {
    const Kept stored = turned(group, slot, kept);
    std::memcpy(place(table, group, slot), &stored, sizeof stored);
  }

  std::vector<int> windows_;
  std::vector<bool> is_state_;
};

inline std::vector<int32_t> random_ids(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % kVocab);
  return ids;
}

inline std::vector<float> copy(std::span<const float> values) {
  return {values.begin(), values.end()};
}

}  // namespace edge::test
