// A model made of hashes: what a group keeps of a token is, in the first group, its id, and in
// every other one the hash of what the group before sees there; the logits of a row are the hash of
// what the last group sees. Any mistake of a session in pages, positions, order or cuts changes
// them.
#pragma once

#include <algorithm>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "runtime/kv_cache.h"
#include "runtime/step_model.h"

namespace edge::test {

constexpr int kVocab = 11;
constexpr int kHidden = 3;  // the first of the logits
constexpr size_t kPageBytes = kPageTokens * sizeof(int32_t);

inline uint32_t hash_of(uint32_t hash, int32_t value) {
  return (hash ^ static_cast<uint32_t>(value)) * 16777619u;
}

inline int first_seen(int window, int position) {
  return window > 0 ? std::max(0, position - window + 1) : 0;
}

// The n numbers that are made of a hash, to `out` and on.
inline void put(uint32_t hash, int n, float*& out) {
  for (int j = 0; j < n; ++j) *out++ = static_cast<float>((hash >> j) & 0xFFFF);
}

class HashModel final : public StepModel {
 public:
  // A window for each group, 0: none.
  explicit HashModel(std::vector<int> windows = {0}) : windows_(std::move(windows)) {}

  int n_vocab() const override { return kVocab; }
  int d_model() const override { return kHidden; }
  int max_rows() const override { return 48; }
  bool has_head() const override { return !is_headless; }
  // Group g has pages of g + 1 times kPageBytes.
  std::vector<KvGroup> groups() const {
    std::vector<KvGroup> groups;
    for (const int window : windows_) groups.push_back({window, kPageBytes * (groups.size() + 1)});
    return groups;
  }

  Status step(std::span<const RowInput> rows, const StepOutputs& outputs,
              const StopCheck& should_stop) override {
    if (should_stop && should_stop()) return {Code::kCancelled, "stopped"};
    if (n_steps_until_failure-- == 0) return {Code::kNumeric, "made to fail"};
    step_rows.push_back(static_cast<int>(rows.size()));
    std::vector<uint32_t> hashes;
    for (const RowInput& row : rows) {
      int32_t value = row.token;
      uint32_t hash = 0;
      for (size_t group = 0; group < windows_.size(); ++group) {
        const KvTable& table = row.kv.tables[group];
        const int first = first_seen(windows_[group], row.position);
        if (row.position / kPageTokens >= table.n_pages) return {Code::kInvalidArgument, "no page"};
        for (int page = first / kPageTokens; page <= row.position / kPageTokens; ++page) {
          if (table.pages[page] == nullptr) return {Code::kInvalidArgument, "a page is gone"};
        }
        std::memcpy(slot(table, row.position), &value, sizeof value);
        hash = 2166136261u;
        for (int position = first; position <= row.position; ++position) {
          int32_t seen = 0;
          std::memcpy(&seen, slot(table, position), sizeof seen);
          hash = hash_of(hash, seen);
        }
        value = static_cast<int32_t>(hash);
      }
      hashes.push_back(hash);
    }
    float *logits = outputs.logits, *hidden = outputs.hidden;
    for (const int32_t i : outputs.rows) put(hashes[static_cast<size_t>(i)], kVocab, logits);
    for (const int32_t i : outputs.hidden_rows) {
      put(hashes[static_cast<size_t>(i)], kHidden, hidden);
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
        for (size_t j = first; j <= i; ++j) hashes[i] = hash_of(hashes[i], values[j]);
      }
      for (size_t i = 0; i < ids.size(); ++i) values[i] = static_cast<int32_t>(hashes[i]);
    }
    std::vector<float> logits(kVocab);
    float* out = logits.data();
    put(hashes.back(), kVocab, out);
    return logits;
  }

  std::vector<int> step_rows;  // how the session cut its queue
  int n_steps_until_failure = -1;
  bool is_headless = false;

 private:
  static std::byte* slot(const KvTable& table, int position) {
    return table.pages[position / kPageTokens] +
           static_cast<size_t>(position % kPageTokens) * sizeof(int32_t);
  }

  std::vector<int> windows_;
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
