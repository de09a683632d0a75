#include "runtime/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "runtime/mib_text.h"

namespace edge {
namespace {

constexpr size_t kSlabBytes = size_t{1} << 20;  // about what one request to the OS is worth

}  // namespace

KvCache::KvCache(std::span<const KvGroup> groups, uint64_t budget_bytes)
    : groups_(groups.begin(), groups.end()), budget_bytes_(budget_bytes) {
  for (const KvGroup& group : groups) {
    const size_t slab_pages = std::clamp(kSlabBytes / group.page_bytes, size_t{1}, kMaxSlabPages);
    pools_.push_back({.page_bytes = group.page_bytes, .slab_pages = slab_pages, .slabs = {}});
  }
}

Status KvCache::reserve(int n_ctx) {
  const uint64_t n_bytes = kv_bytes_for(groups_, n_ctx);
  const std::lock_guard lock(mutex_);
  const uint64_t free_bytes = budget_bytes_ - reserved_bytes_;
  if (n_bytes > free_bytes) {
    return {Code::kMemoryBudget,
            "the KV cache needs " + mib_text(n_bytes) + " and " + mib_text(free_bytes) +
                " are left; use an n_ctx of at most " +
                std::to_string(fitting_n_ctx(groups_, free_bytes, n_ctx)) +
                " (prompt and new tokens together), close other sessions or raise max_memory"};
  }
  reserved_bytes_ += n_bytes;
  return Status::ok();
}

void KvCache::unreserve(int n_ctx) {
  const std::lock_guard lock(mutex_);
  reserved_bytes_ -= kv_bytes_for(groups_, n_ctx);
}

Status KvCache::claim(uint64_t n_bytes, std::string_view what) {
  const std::lock_guard lock(mutex_);
  const uint64_t free_bytes = budget_bytes_ - reserved_bytes_;
  if (n_bytes > free_bytes) {
    return {Code::kMemoryBudget, std::string(what) + " needs " + mib_text(n_bytes) + " and " +
                                     mib_text(free_bytes) +
                                     " are left; close sessions or raise max_memory"};
  }
  reserved_bytes_ += n_bytes;
  return Status::ok();
}

void KvCache::unclaim(uint64_t n_bytes) {
  const std::lock_guard lock(mutex_);
  reserved_bytes_ -= n_bytes;
}

Result<PageId> KvCache::take(size_t group) {
  const std::lock_guard lock(mutex_);
  Pool& pool = pools_[group];
  size_t s = 0;
  while (s < pool.slabs.size() && pool.slabs[s].n_used == pool.slab_pages) ++s;
  if (s == pool.slabs.size()) pool.slabs.emplace_back();
  Slab& slab = pool.slabs[s];
  if (slab.n_used == 0) {
    EDGE_ASSIGN_OR_RETURN(slab.memory, PageBuffer::allocate(pool.slab_pages * pool.page_bytes));
    slab.dirty = 0;
  }
  size_t i = 0;
  while (slab.owners[i] != 0) ++i;
  const PageId page = static_cast<PageId>(s * pool.slab_pages + i);
  const uint64_t bit = uint64_t{1} << i;
  if ((slab.dirty & bit) != 0) std::memset(pool.address(page), 0, pool.page_bytes);
  slab.dirty |= bit;
  slab.owners[i] = 1;
  ++slab.n_used;
  used_bytes_ += pool.page_bytes;
  return page;
}

void KvCache::retain(size_t group, PageId page) {
  const std::lock_guard lock(mutex_);
  Pool& pool = pools_[group];
  ++pool.slabs[page / pool.slab_pages].owners[page % pool.slab_pages];
}

void KvCache::release(size_t group, PageId page) {
  const std::lock_guard lock(mutex_);
  Pool& pool = pools_[group];
  Slab& slab = pool.slabs[page / pool.slab_pages];
  uint32_t& n_owners = slab.owners[page % pool.slab_pages];
  if (--n_owners != 0) return;
  used_bytes_ -= pool.page_bytes;
  if (--slab.n_used == 0) slab.memory = PageBuffer();
}

std::byte* KvCache::Pool::address(PageId page) const {
  return slabs[page / slab_pages].memory.data() + (page % slab_pages) * page_bytes;
}

std::byte* KvCache::data(size_t group, PageId page) const {
  const std::lock_guard lock(mutex_);
  return pools_[group].address(page);
}

KvCacheFigures KvCache::figures() const {
  const std::lock_guard lock(mutex_);
  KvCacheFigures figures;
  figures.reserved_bytes = reserved_bytes_;
  figures.used_bytes = used_bytes_;
  for (const Pool& pool : pools_) {
    for (const Slab& slab : pool.slabs) figures.held_bytes += slab.memory.size_bytes();
  }
  return figures;
}

}  // namespace edge
