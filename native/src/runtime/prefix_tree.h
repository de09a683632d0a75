// PrefixTree: the KV pages of texts that were processed, by their token ids, so that no prefix is
// computed twice. A node is a page: 16 tokens after those of its parent, or fewer at the end of a
// text. Its pages belong to the tree and to every sequence that begins with these tokens; nobody
// writes to them (runtime/kv_sequence.h copies what it wants to go on in).
//
// Texts under different keys never meet: a key names all besides the ids that a page depends on.
//
// The state of recurrent layers is kept at checkpoints only: every kCheckpointTokens tokens and
// where a turn or a text ended. What is known of a text ends at one of them; the pages between have
// none.
//
// What no sequence holds is kept up to a budget of bytes and goes by least recent use: ends of
// texts first, and of the pages inside those of windows, without which a text can be followed but
// not left there. Where there is a disk, whole pages are written to it before the
// first of them goes, by the thread that needs the room and outside the lock. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "runtime/kv_cache.h"
#include "runtime/kv_disk.h"

namespace edge {

constexpr int kCheckpointTokens = 512;

// Whether the tree and the disk keep the state at the end of every text's page `number`.
constexpr bool is_checkpoint(int number) {
  return (number + 1) % (kCheckpointTokens / kPageTokens) == 0;
}

// Pages of one group from number first_page on.
struct KvPages {
  int first_page = 0;
  std::vector<PageId> pages;
};

struct PrefixNode;

// What is known of a text from a node on. The caller owns the pages.
struct PrefixMatch {
  int n_pages = 0;              // whole ones that follow
  std::vector<KvPages> groups;  // of them; where the text begins, windows have only what they see
  int n_tail_tokens = 0;        // of one more page that begins with the tokens that follow these
  std::vector<PageId> tail;     // that page, by group: to be copied
};

struct PrefixFigures {
  int64_t n_nodes = 0;
  int64_t n_matched_tokens = 0;  // so far
  int64_t n_evicted_tokens = 0;
};

class PrefixTree {
 public:
  // Keeps up to idle_budget_bytes that no sequence holds. `cache` and `disk` (null: none) must
  // outlive it, it its sequences.
  PrefixTree(KvCache& cache, uint64_t idle_budget_bytes, KvDisk* disk = nullptr);
  ~PrefixTree();
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  // Where texts under `key` begin. A node that a sequence stands at stays.
  PrefixNode* enter(std::string_view key);
  void leave(PrefixNode* node);
  void join(PrefixNode* node);  // one more at a node where one stands
  // Steps back to the page before.
  void up(PrefixNode*& node);

  // The most of `ids` that is known after `node`, which becomes the last whole page of it.
  PrefixMatch match(PrefixNode*& node, std::span<const int32_t> ids);
  // The page of the 16 ids that follow `node`, one for each group, which becomes the new one's. If
  // it is known already, `pages` become those of the tree, and the caller's are released; otherwise
  // the tree becomes an owner. Of states only at checkpoints, of which ends_here makes one:
  // KvCache::is_kept() says which. kNoPage: the caller has let go of a state.
  void insert(PrefixNode*& node, std::span<const int32_t> ids, std::span<PageId> pages,
              bool ends_here = false);
  // A turn ended at the node of these pages: the tree becomes an owner of their states, too.
  void keep_states(PrefixNode& node, std::span<const PageId> pages);
  // The end of a text, of fewer than 16 ids: the tree becomes an owner of the pages, unless a known
  // page begins with these ids.
  void insert_tail(PrefixNode* node, std::span<const int32_t> ids, std::span<const PageId> pages);

  KvDisk* disk() const { return disk_; }
  // Of the page at `node`, there.
  KvDisk::Name disk_name(const PrefixNode& node) const;

  // Lets go of what is beyond the idle budget.
  void enforce();
  // Lets go of the least recently used, or writes it down before; false if no page is idle.
  bool evict_one();
  // Repeats `claim`, a Status(), while it says kMemoryBudget and something can be let go.
  template <class F>
  Status with_room(F&& claim) {
    Status status = claim();
    while (status.code() == Code::kMemoryBudget && evict_one()) status = claim();
    return status;
  }
  // Lets go of n_bytes, or of all that is idle. Returns the bytes let go.
  uint64_t trim(uint64_t n_bytes);

  PrefixFigures figures() const;
  // The lock of all state, for fork(): a child must not inherit it half-way.
  std::mutex& mutex() { return mutex_; }

 private:
  using Age = std::pair<uint64_t, PrefixNode*>;
  using Lock = std::unique_lock<std::mutex>;

  PrefixNode* oldest() const;
  // The bytes let go, 0 where it was only written; nothing if no page is idle.
  std::optional<uint64_t> let_go_oldest(Lock& lock);
  bool write_down(PrefixNode& node, Lock& lock);
  void touch(PrefixNode& node);
  void file(PrefixNode& node);
  void unfile(PrefixNode& node);
  PrefixNode& add(PrefixNode& parent, std::span<const int32_t> ids, std::span<const PageId> pages);
  uint64_t remove(PrefixNode& node);
  bool drop_superseded(PrefixNode& parent, std::span<const int32_t> ids);
  void adopt_states(PrefixNode& node, std::span<const PageId> pages);
  bool is_storable(const PrefixNode& node) const;
  uint64_t drop_windows(PrefixNode& node);
  bool has_windows(const PrefixNode& node) const;
  bool can_drop(const PrefixNode& node, size_t group) const;
  // The first page of a group that a text of n_tokens, which ends at `node`, needs and has in one
  // piece; -1 if one is missing.
  int first_held(const PrefixNode& node, size_t group, int n_tokens) const;
  void give(PrefixNode& node, int n_before, PrefixMatch& match);

  KvCache& cache_;
  const uint64_t idle_budget_bytes_;
  KvDisk* const disk_;
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<PrefixNode>, std::less<>> roots_;
  std::set<Age> ends_;    // nodes without children that no sequence stands at
  std::set<Age> inside_;  // others, with pages of windows
  uint64_t clock_ = 0;
  PrefixFigures figures_;
};

}  // namespace edge
