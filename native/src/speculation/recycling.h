// Token recycling (Luo et al. 2024, arXiv 2408.08696): the likeliest followers of a token, by the
// logits of the step that last read it, are candidates when it comes again; followers of followers
// make a tree. Shared by the sequences of a model; bounded memory: where there are fewer entries
// than tokens, that of one gives way to that of another.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "speculation/acceptance.h"
#include "speculation/drafter.h"

namespace edge {

class RecyclingTable {
 public:
  using Followers = std::array<int32_t, kTopTokens>;  // likeliest first; -1: no more

  // One entry for each of n_vocab tokens, or as many as fit: a power of two.
  RecyclingTable(size_t memory_bytes, int n_vocab);

  // All of them new, as logits have them.
  void set(int32_t token, std::span<const int32_t> followers);
  // One that was seen: the first now.
  void promote(int32_t token, int32_t follower);
  const Followers* find(int32_t token) const;  // null: unknown
  size_t memory_bytes() const { return entries_.capacity() * sizeof(Entry); }

 private:
  struct Entry {
    int32_t token = -1;
    Followers followers;
  };
  size_t index(int32_t token) const;
  Entry& entry_of(int32_t token);

  std::vector<Entry> entries_;
};

class RecyclingDrafter : public Drafter {
 public:
  RecyclingDrafter(RecyclingTable& table, const Acceptance& acceptance)
      : table_(table), acceptance_(acceptance) {}

  DrafterKind kind() const override { return DrafterKind::kRecycling; }
  void propose(const DraftContext& context, Candidates& out) override;
  void observe(const DraftObservation& observation) override;
  void rewind(std::span<const int32_t>) override {}
  size_t memory_bytes() const override { return 0; }  // the table counts as what is shared

 private:
  RecyclingTable& table_;
  const Acceptance& acceptance_;
};

}  // namespace edge
