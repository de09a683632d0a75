// KvCache: the KV pages of one model, shared by all its sequences: allocation, owners, and the
// account of bytes against a budget. Knows nothing of layers; a page is memory of its group's page
// size.
//
// Sequences reserve what they may need when they are made, so that a generation that has started is
// never refused a page. A page that the prefix tree keeps leaves the account of the sequence that
// filled it and stands in the tree's, once for all who share it; nobody writes to it any more.
// Pages come zeroed, from slabs straight from the OS that go back when their last page is released.
// Thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "base/status.h"
#include "runtime/kv_plan.h"

namespace edge {

struct KvCacheFigures {
  uint64_t reserved_bytes = 0;  // promised to sequences, or claimed
  uint64_t besides_bytes = 0;   // of these, what sequences take besides pages
  uint64_t kept_bytes = 0;      // in pages that the prefix tree keeps, of which
  uint64_t idle_bytes = 0;      // no sequence holds
  uint64_t used_bytes = 0;      // in pages that have an owner
  uint64_t held_bytes = 0;      // taken from the OS
};

class KvCache {
 public:
  // budget_bytes: cap on what is reserved, claimed and kept. Page sizes > 0. allocate: where pages
  // come from, the backend's.
  KvCache(std::span<const KvGroup> groups, uint64_t budget_bytes,
          PageBuffer::Allocate allocate = PageBuffer::allocate);
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  std::span<const KvGroup> groups() const { return groups_; }

  // The most pages of all groups that a sequence of n_ctx tokens holds, and bytes that it takes
  // besides. kMemoryBudget when they, what is reserved and what is kept would pass the budget.
  Status reserve(int n_ctx, uint64_t n_bytes_besides = 0);
  // What is still reserved of both.
  void unreserve(uint64_t n_bytes, uint64_t n_bytes_besides);

  // Bytes of the budget that something else takes from now on, until it gives them back;
  // kMemoryBudget when they are not free. `what` is for the message.
  Status claim(uint64_t n_bytes, std::string_view what);
  void unclaim(uint64_t n_bytes);
  // As claim(), but may pass the budget: of a sequence that had this page reserved before it shared
  // it. Before it takes one again, is_over_budget() must be false.
  void reclaim(uint64_t n_bytes);
  bool is_over_budget() const;

  // A zeroed page with one owner, fit for page `number` of a sequence. kOutOfMemory when the OS has
  // no more.
  Result<PageId> take(size_t group, size_t number);
  void retain(PageId page);
  void release(PageId page);  // frees it with its last owner
  std::byte* data(PageId page) const;
  size_t page_bytes(PageId page) const;
  // keep(): the prefix tree becomes an owner. drop(): it is none any more.
  void keep(PageId page);
  void drop(PageId page);
  // Whether the tree is one of its owners, and whether the only one.
  bool is_kept(PageId page) const;
  bool is_idle(PageId page) const;

  uint64_t idle_bytes() const;
  KvCacheFigures figures() const;
  // The lock of all state, for fork(): a child must not inherit it half-way.
  std::mutex& mutex() { return mutex_; }

 private:
  static constexpr size_t kMaxSlabPages = 64;
  struct Slab {
    PageBuffer memory;  // empty when no page is in use
    size_t n_used = 0;
    uint64_t dirty = 0;                            // pages that were used since the OS zeroed them
    uint64_t kept = 0;                             // pages of the tree
    std::array<uint32_t, kMaxSlabPages> owners{};  // 0: free
  };

  // Pages of one size and use: those of a group, or its first ones where they differ. PageId = pool
  // << 32 | slab * slab_pages + index.
  struct Pool {
    size_t page_bytes = 0;
    size_t slab_pages = 0;
    std::vector<Slab> slabs;
  };
  // Where a page is.
  struct Place {
    size_t page_bytes;
    Slab& slab;
    size_t index;
    uint64_t bit() const { return uint64_t{1} << index; }
    std::byte* address() const { return slab.memory.data() + index * page_bytes; }
    bool is_idle() const { return slab.owners[index] == 1 && (slab.kept & bit()) != 0; }
  };

  size_t pool_of(size_t group, size_t number) const;
  Place place(PageId page) const;
  uint64_t free_bytes() const;
  void let_go(const Place& at);

  const std::vector<KvGroup> groups_;
  const uint64_t budget_bytes_;
  const PageBuffer::Allocate allocate_;
  mutable std::mutex mutex_;
  mutable std::vector<Pool> pools_;  // of the groups, then of their first pages
  uint64_t reserved_bytes_ = 0;
  uint64_t besides_bytes_ = 0;
  uint64_t kept_bytes_ = 0;
  uint64_t idle_bytes_ = 0;
  uint64_t used_bytes_ = 0;
};

}  // namespace edge
