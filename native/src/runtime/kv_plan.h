// KvPlan: which pages a sequence holds and how many tokens are in them. Integers only: it knows
// page ids, not bytes, so it is the same for every backend and is tested without a model.
//
// plan() is pure and says what a step of n tokens needs; the caller gets the pages and attaches
// them; commit() makes the tokens count once the step has succeeded. A step that fails leaves
// n_tokens where it was. Invariant: n_tokens <= n_pages * kPageTokens, n_tokens <= n_ctx.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace edge {

using PageId = uint32_t;

struct KvStepPlan {
  int first_position = 0;  // of the new tokens
  int n_new_tokens = 0;
  int n_new_pages = 0;  // to attach before the step
};

class KvPlan {
 public:
  explicit KvPlan(int n_ctx);  // n_ctx >= 1

  int n_ctx() const { return n_ctx_; }
  int n_tokens() const { return n_tokens_; }
  std::span<const PageId> pages() const { return pages_; }  // page i: positions 32 i .. 32 i + 31

  // kInvalidArgument unless n_new_tokens > 0; kContextOverflow when n_ctx would be passed.
  Result<KvStepPlan> plan(int n_new_tokens) const;
  void attach(PageId page) { pages_.push_back(page); }
  // The pages must be attached: kInvalidArgument otherwise.
  Status commit(int n_new_tokens);
  // Keeps the first n_tokens and the pages that hold them; returns the pages let go, last first.
  Result<std::vector<PageId>> rewind(int n_tokens);

 private:
  int n_ctx_ = 0;
  int n_tokens_ = 0;
  std::vector<PageId> pages_;
};

// Pages that hold n_tokens >= 0.
int n_pages_for(int n_tokens);

}  // namespace edge
