// KvSequence: the KV of one sequence: a plan, the pages that it names, and the tables by which a
// step finds them. Reserves room for its whole context when it is made and gives it back at its
// end.
//
// A step: prepare() gets the pages, the model writes and reads them through view(), commit() makes
// the tokens count. Without commit() nothing has happened but unused slots being written.
//
// With a prefix tree, whole pages are shared: adopt() goes on from what others have computed of the
// same ids, in memory or, as pages of its own, on disk; publish() leaves the own ones to others.
// Shared pages, the first n_shared_pages(), are never written; where the sequence goes on inside
// one, after rewind(), prepare() copies it first. Knows nothing of models. For one thread at a
// time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/kv_layout.h"
#include "base/status.h"
#include "runtime/kv_cache.h"
#include "runtime/kv_plan.h"
#include "runtime/prefix_tree.h"

namespace edge {

class KvSequence {
 public:
  // Of n_ctx >= 1 tokens at most: kInvalidArgument, kMemoryBudget. `cache` and `tree` must outlive
  // it; without a tree it shares nothing. `key`: PrefixTree's. n_bytes_besides: what its owner
  // takes, for the account.
  static Result<std::unique_ptr<KvSequence>> create(KvCache& cache, int n_ctx,
                                                    PrefixTree* tree = nullptr,
                                                    std::string_view key = {},
                                                    uint64_t n_bytes_besides = 0);
  ~KvSequence();
  KvSequence(const KvSequence&) = delete;
  KvSequence& operator=(const KvSequence&) = delete;

  int n_ctx() const { return plan_.n_ctx(); }
  int n_tokens() const { return plan_.n_tokens(); }
  int n_shared_pages() const { return n_shared_pages_; }
  int64_t n_disk_tokens() const { return n_disk_tokens_; }  // that adopt() has read so far
  uint64_t held_bytes() const;                              // of its pages, shared ones included
  KvCache& cache() const { return cache_; }
  const KvPlan& plan() const { return plan_; }
  // Valid until the sequence goes; what it points to changes with every other method.
  KvView view() const { return {tables_.data(), stamp_}; }

  // As KvCache::claim(), for its owner; what is kept for others gives way.
  Status claim(uint64_t n_bytes, std::string_view what);

  // Room for n_rows more tokens, and pages that no query sees any more let go: kContextOverflow,
  // kInvalidArgument as KvPlan::plan(), kOutOfMemory, kMemoryBudget where pages that were shared
  // must be the sequence's own again and others still use them.
  Result<KvStepPlan> prepare(int n_rows);
  // The n_rows prepared tokens count from now on.
  Status commit(int n_rows) { return plan_.commit(n_rows); }
  // Keeps the first n_tokens or, where pages are gone that a query there would see, none.
  // 0 <= n_tokens <= n_tokens().
  void rewind(int n_tokens);

  // Takes whole pages out of every group, behind the first ones; those behind them move down. As
  // KvPlan::drop().
  Status drop_pages(int first_page, int n_pages);
  // Before anything is written but prepared slots, and before drop_pages(): every page becomes the
  // sequence's own, and none is shared any more until rewind(0). kOutOfMemory, kMemoryBudget.
  Status detach();
  // Gives memory back until the OS has got n_bytes: what the tree keeps and nobody uses, then the
  // last slots, but none of the first n_least. Returns the bytes that the OS got: none for pages
  // that others use or whose neighbours in memory are in use.
  uint64_t give_back(uint64_t n_bytes, int n_least);

  // Goes on from what is known of the text `ids`, of which the first n_tokens() are its own.
  // Returns how many tokens that are. Best effort: without memory for the copy of a page that
  // begins alike, it does without.
  int adopt(std::span<const int32_t> ids);
  // The tokens so far are `ids`, n_tokens() of them: leaves the whole pages to others. After every
  // commit.
  void publish(std::span<const int32_t> ids);
  // A turn ends here: from now on, or once the page is whole, texts may go on from inside it that
  // need the state of recurrent layers.
  void end_turn();
  // As publish(), and the begun page too. The last call but rewind().
  void settle(std::span<const int32_t> ids);
  // Another one with the same tokens, which shares the shared pages and has copies of the others.
  Result<std::unique_ptr<KvSequence>> fork() const;
  // Texts under another key from now on; n_tokens() must be 0.
  void set_key(std::string_view key);

  // `by_group` in place of all its pages: fresh ones from the cache, with one owner each, that hold
  // n_tokens. is_prefix: they hold what the ids alone give; otherwise they are not shared any more.
  void swap_in(int n_tokens, std::span<const KvPages> by_group, bool is_prefix);

 private:
  KvSequence(KvCache& cache, int n_ctx, PrefixTree* tree, std::string_view key);
  void stamp_anew();
  Status make_room();
  Status own_last_page();
  PrefixMatch share_known(std::span<const int32_t> ids);
  size_t read_known(std::span<const int32_t> ids);
  bool read_page(KvDisk& disk, const KvDisk::Name& name, std::span<const int32_t> ids);
  bool has_states() const { return cache_.groups().back().is_state; }
  bool is_shared(size_t group, size_t number, PageId page) const;
  void copy_tail(const PrefixMatch& match);
  std::vector<PageId> pages_at(int number) const;
  Result<std::vector<PageId>> copies(std::span<const PageId> pages, size_t number);
  void attach(size_t group, PageId page);
  void put(size_t group, size_t number, PageId page);
  void let_go(std::span<const KvPage> pages);
  void step_back(int n_pages);
  void share(PageId page);
  void stand_at(PrefixNode* node, int n_pages);

  KvCache& cache_;
  PrefixTree* const tree_;
  std::string key_;
  KvPlan plan_;
  uint64_t promised_bytes_ = 0;  // of the cache, for pages that it may own
  uint64_t n_bytes_besides_ = 0;
  PrefixNode* node_ = nullptr;  // of the last published page; null: publishes nothing
  int n_published_ = 0;         // pages up to there
  int turn_page_ = -1;          // that a turn ended in, which is not published yet
  int64_t n_disk_tokens_ = 0;
  // These, and one more where rewind() went inside it; of states only those that the tree keeps.
  int n_shared_pages_ = 0;
  std::vector<std::vector<std::byte*>> page_data_;  // of plan_'s pages, by group and number
  std::vector<KvTable> tables_;                     // of page_data_, for KvView
  uint64_t stamp_;                                  // as in KvView
};

}  // namespace edge
