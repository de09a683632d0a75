// KvSequence: the KV of one sequence: a plan, the pages that it names, and the tables by which a
// step finds them. Reserves room for its whole context when it is made and gives it back at its
// end.
//
// A step: prepare() gets the pages, the model writes and reads them through view(), commit() makes
// the tokens count. Without commit() nothing has happened but unused slots being written. Knows
// nothing of token ids and models. For one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backends/kv_layout.h"
#include "base/status.h"
#include "runtime/kv_cache.h"
#include "runtime/kv_plan.h"

namespace edge {

class KvSequence {
 public:
  // Of n_ctx >= 1 tokens at most: kInvalidArgument, kMemoryBudget. `cache` must outlive it.
  static Result<std::unique_ptr<KvSequence>> create(KvCache& cache, int n_ctx);
  ~KvSequence();
  KvSequence(const KvSequence&) = delete;
  KvSequence& operator=(const KvSequence&) = delete;

  int n_ctx() const { return plan_.n_ctx(); }
  int n_tokens() const { return plan_.n_tokens(); }
  uint64_t held_bytes() const;  // of its pages
  // Valid until the sequence goes; what it points to changes with prepare() and rewind().
  KvView view() const { return {tables_.data()}; }

  // Room for n_rows more tokens, and pages that no query sees any more let go: kContextOverflow,
  // kInvalidArgument as KvPlan::plan(), kOutOfMemory.
  Result<KvStepPlan> prepare(int n_rows);
  // The n_rows prepared tokens count from now on.
  Status commit(int n_rows) { return plan_.commit(n_rows); }
  // Keeps the first n_tokens or, where pages are gone that a query there would see, none.
  // 0 <= n_tokens <= n_tokens().
  void rewind(int n_tokens);

 private:
  KvSequence(KvCache& cache, int n_ctx);
  void let_go(std::span<const KvPage> pages);

  KvCache& cache_;
  KvPlan plan_;
  uint64_t promised_bytes_ = 0;                     // of the cache, for pages that it may own
  std::vector<std::vector<std::byte*>> page_data_;  // of plan_'s pages, by group and number
  std::vector<KvTable> tables_;                     // of page_data_, for KvView
};

}  // namespace edge
