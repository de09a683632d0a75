// KvPlan: which pages a sequence holds and how many tokens are in them. Integers only: it knows
// page ids, not bytes, so it is the same for every backend and is tested without a model.
//
// plan() is pure and says what a step of n tokens needs; the caller frees what trim() returns, gets
// pages and attaches them; commit() makes the tokens count once the step has succeeded. A step that
// fails leaves n_tokens where it was. Invariants: n_tokens <= n_ctx; a group holds the pages that a
// query at n_tokens or later sees, without a window all, and never more than most_pages().
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backends/kv_layout.h"
#include "base/status.h"

namespace edge {

// The name of a page in the cache.
using PageId = uint64_t;
constexpr PageId kNoPage = UINT64_MAX;  // among the pages of all groups: one that was let go

struct KvStepPlan {
  int first_position = 0;  // of the new tokens
  int n_new_tokens = 0;
  int n_pages = 0;  // that every group must reach before the step, those let go counted
};

// A page that is let go, and its place in the table of its group.
struct KvPage {
  size_t group = 0;
  size_t number = 0;
  PageId id = 0;
};

class KvPlan {
 public:
  KvPlan(int n_ctx, std::span<const KvGroup> groups);  // n_ctx >= 1

  int n_ctx() const { return n_ctx_; }
  int n_tokens() const { return n_tokens_; }
  size_t n_groups() const { return tables_.size(); }
  // Page i has positions 16 i .. 16 i + 15; those before first_page(group) were let go.
  int n_pages(size_t group) const { return static_cast<int>(tables_[group].pages.size()); }
  int first_page(size_t group) const { return tables_[group].first_page; }
  std::span<const PageId> held_pages(size_t group) const;  // from first_page(group) on

  // kInvalidArgument unless 0 < n_new_tokens <= kKeptTokens; kContextOverflow when n_ctx would be
  // passed.
  Result<KvStepPlan> plan(int n_new_tokens) const;
  // The sequence goes on after n_tokens of which it was given the pages: all attached, or skipped
  // where no query from n_tokens on sees them. n_tokens() <= n_tokens <= n_ctx.
  void adopt(int n_tokens) { n_tokens_ = n_tokens; }
  // Page n_pages(group) was let go before it came; only before the first one that is attached.
  void skip(size_t group);
  // In place of page `number`, which is held.
  void replace(size_t group, size_t number, PageId page) { tables_[group].pages[number] = page; }
  // Lets go of pages that neither the planned step sees nor one after a rewind of kKeptTokens from
  // its end. None without windows.
  std::vector<KvPage> trim(const KvStepPlan& step);
  // Lets go of a group's pages before page `first` <= n_pages(group).
  std::vector<KvPage> let_go_before(size_t group, int first);
  void attach(size_t group, PageId page) { tables_[group].pages.push_back(page); }
  // The pages must be attached: kInvalidArgument otherwise.
  Status commit(int n_new_tokens);
  // Keeps the first n_tokens or, where pages are gone that a query at n_tokens would see, none.
  // Returns the pages let go, last first. 0 <= n_tokens <= n_tokens().
  std::vector<KvPage> rewind(int n_tokens);
  // Whether rewind() to there keeps the KV.
  bool is_whole_at(int n_tokens) const;

  // Takes n_pages pages of every group out, from page `first` >= kFirstPages on; those behind move
  // down and keep what they hold. All of their slots must be full and, windows seen from the new
  // end, whole: kInvalidArgument, kFeatureUnsupported. Returns the pages let go.
  Result<std::vector<KvPage>> drop(int first, int n_pages);
  Status check_drop(int first, int n_pages) const;

 private:
  struct Table {
    int window = 0;
    int first_page = 0;
    std::vector<PageId> pages;  // by number; those before first_page mean nothing
  };

  int n_ctx_ = 0;
  int n_tokens_ = 0;
  std::vector<Table> tables_;
};

// The first position that a query at `position` sees; window 0: all do.
int first_seen(int window, int position);
// Pages that hold n_tokens >= 0.
int n_pages_for(int n_tokens);
// The most pages that a group with this window (0: none) holds of a sequence of n_ctx >= 0 tokens.
int most_pages(int window, int n_ctx);
// The most bytes that a sequence of n_ctx >= 0 tokens holds; UINT64_MAX where that is no number.
uint64_t kv_bytes_for(std::span<const KvGroup> groups, int n_ctx);
// The longest context in whole pages, below n_ctx, whose KV is within n_bytes; 0: not one page.
int fitting_n_ctx(std::span<const KvGroup> groups, uint64_t n_bytes, int n_ctx);

}  // namespace edge
