// KvCache: the KV pages of one model, shared by all its sessions: allocation, reference counts, and
// the account of bytes against a budget. Knows nothing of layers; a page is memory of its group's
// page size, with an id within the group.
//
// Sessions reserve what they may need when they are made, so that a generation that has started is
// never refused a page. Pages come zeroed, from slabs straight from the OS that go back when their
// last page is released. A page with several owners (a prefix shared by sequences) is retained once
// per owner. Thread-safe.
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
  uint64_t reserved_bytes = 0;  // promised to sessions, or claimed
  uint64_t used_bytes = 0;      // in pages that have an owner
  uint64_t held_bytes = 0;      // taken from the OS
};

class KvCache {
 public:
  // budget_bytes: cap on reservations and claims. Page sizes > 0.
  KvCache(std::span<const KvGroup> groups, uint64_t budget_bytes);
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  std::span<const KvGroup> groups() const { return groups_; }

  // The most pages of all groups that a sequence of n_ctx tokens holds. kMemoryBudget when they and
  // what is reserved would pass the budget.
  Status reserve(int n_ctx);
  void unreserve(int n_ctx);

  // Bytes of the budget that something else takes from now on, until it gives them back;
  // kMemoryBudget when they are not free. `what` is for the message.
  Status claim(uint64_t n_bytes, std::string_view what);
  void unclaim(uint64_t n_bytes);

  // A zeroed page with one owner. kOutOfMemory when the OS has no more.
  Result<PageId> take(size_t group);
  void retain(size_t group, PageId page);
  void release(size_t group, PageId page);  // frees it with its last owner
  std::byte* data(size_t group, PageId page) const;

  KvCacheFigures figures() const;
  // The lock of all state, for fork(): a child must not inherit it half-way.
  std::mutex& mutex() { return mutex_; }

 private:
  static constexpr size_t kMaxSlabPages = 64;
  struct Slab {
    PageBuffer memory;  // empty when no page is in use
    size_t n_used = 0;
    uint64_t dirty = 0;                            // pages that were used since the OS zeroed them
    std::array<uint32_t, kMaxSlabPages> owners{};  // 0: free
  };

  // The pages of one group. Page id = slab * slab_pages + index.
  struct Pool {
    size_t page_bytes = 0;
    size_t slab_pages = 0;
    std::vector<Slab> slabs;

    std::byte* address(PageId page) const;
  };

  const std::vector<KvGroup> groups_;
  const uint64_t budget_bytes_;
  mutable std::mutex mutex_;
  std::vector<Pool> pools_;  // as many as groups
  uint64_t reserved_bytes_ = 0;
  uint64_t used_bytes_ = 0;
};

}  // namespace edge
