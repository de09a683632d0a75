#include "runtime/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/checked.h"
#include "runtime/mib_text.h"

namespace edge {
namespace {

constexpr size_t kSlabBytes = size_t{1} << 19;  // about what one request to the OS is worth

}  // namespace

KvCache::KvCache(std::span<const KvGroup> groups, uint64_t budget_bytes,
                 PageBuffer::Allocate allocate)
    : groups_(groups.begin(), groups.end()), budget_bytes_(budget_bytes), allocate_(allocate) {
  for (const size_t number : {size_t{kFirstPages}, size_t{0}}) {
    for (const KvGroup& group : groups) {
      const size_t n_bytes = group.bytes_of(number);
      const size_t slab_pages = std::clamp(kSlabBytes / n_bytes, size_t{1}, kMaxSlabPages);
      pools_.push_back({.page_bytes = n_bytes, .slab_pages = slab_pages, .slabs = {}});
    }
  }
}

uint64_t KvCache::free_bytes() const {
  const uint64_t taken_bytes = reserved_bytes_ + kept_bytes_;
  return taken_bytes < budget_bytes_ ? budget_bytes_ - taken_bytes : 0;
}

Status KvCache::reserve(int n_ctx, uint64_t n_bytes_besides) {
  const uint64_t n_bytes =
      checked_add(kv_bytes_for(groups_, n_ctx), n_bytes_besides).value_or(UINT64_MAX);
  const std::lock_guard lock(mutex_);
  if (n_bytes > free_bytes()) {
    const uint64_t left_bytes = free_bytes() - std::min(free_bytes(), n_bytes_besides);
    return {Code::kMemoryBudget,
            "the KV cache needs " + mib_text(n_bytes) + " and " + mib_text(free_bytes()) +
                " are left; use an n_ctx of at most " +
                std::to_string(fitting_n_ctx(groups_, left_bytes, n_ctx)) +
                " (prompt and new tokens together), close other sessions or raise max_memory"};
  }
  reserved_bytes_ += n_bytes;
  besides_bytes_ += n_bytes_besides;
  return Status::ok();
}

void KvCache::unreserve(uint64_t n_bytes, uint64_t n_bytes_besides) {
  const std::lock_guard lock(mutex_);
  reserved_bytes_ -= n_bytes + n_bytes_besides;
  besides_bytes_ -= n_bytes_besides;
}

Status KvCache::claim(uint64_t n_bytes, std::string_view what) {
  const std::lock_guard lock(mutex_);
  if (n_bytes > free_bytes()) {
    return {Code::kMemoryBudget, std::string(what) + " needs " + mib_text(n_bytes) + " and " +
                                     mib_text(free_bytes()) +
                                     " are left; close sessions or raise max_memory"};
  }
  reserved_bytes_ += n_bytes;
  return Status::ok();
}

void KvCache::unclaim(uint64_t n_bytes) {
  const std::lock_guard lock(mutex_);
  reserved_bytes_ -= n_bytes;
}

void KvCache::reclaim(uint64_t n_bytes) {
  const std::lock_guard lock(mutex_);
  reserved_bytes_ += n_bytes;
}

bool KvCache::is_over_budget() const {
  const std::lock_guard lock(mutex_);
  return reserved_bytes_ + kept_bytes_ > budget_bytes_;
}

size_t KvCache::pool_of(size_t group, size_t number) const {
  const bool is_other = number < kFirstPages && groups_[group].has_own_first_pages();
  return is_other ? groups_.size() + group : group;
}

Result<PageId> KvCache::take(size_t group, size_t number) {
  const std::lock_guard lock(mutex_);
  const size_t p = pool_of(group, number);
  Pool& pool = pools_[p];
  size_t s = 0;
  while (s < pool.slabs.size() && pool.slabs[s].n_used == pool.slab_pages) ++s;
  if (s == pool.slabs.size()) pool.slabs.emplace_back();
  Slab& slab = pool.slabs[s];
  if (slab.n_used == 0) {
    EDGE_ASSIGN_OR_RETURN(slab.memory, allocate_(pool.slab_pages * pool.page_bytes));
    slab.dirty = 0;
  }
  size_t i = 0;
  while (slab.owners[i] != 0) ++i;
  const Place at{pool.page_bytes, slab, i};
  if ((slab.dirty & at.bit()) != 0) std::memset(at.address(), 0, pool.page_bytes);
  slab.dirty |= at.bit();
  slab.owners[i] = 1;
  ++slab.n_used;
  used_bytes_ += pool.page_bytes;
  return PageId{p} << 32 | (s * pool.slab_pages + i);
}

KvCache::Place KvCache::place(PageId page) const {
  Pool& pool = pools_[page >> 32];
  const size_t i = page & UINT32_MAX;
  return {pool.page_bytes, pool.slabs[i / pool.slab_pages], i % pool.slab_pages};
}

void KvCache::retain(PageId page) {
  const std::lock_guard lock(mutex_);
  const Place at = place(page);
  if (at.is_idle()) idle_bytes_ -= at.page_bytes;
  ++at.slab.owners[at.index];
}

void KvCache::release(PageId page) {
  const std::lock_guard lock(mutex_);
  const Place at = place(page);
  let_go(at);
  if (at.is_idle()) idle_bytes_ += at.page_bytes;
}

void KvCache::let_go(const Place& at) {
  if (--at.slab.owners[at.index] != 0) return;
  used_bytes_ -= at.page_bytes;
  if (--at.slab.n_used == 0) at.slab.memory = PageBuffer();
}

void KvCache::keep(PageId page) {
  const std::lock_guard lock(mutex_);
  const Place at = place(page);
  ++at.slab.owners[at.index];
  at.slab.kept |= at.bit();
  kept_bytes_ += at.page_bytes;
}

void KvCache::drop(PageId page) {
  const std::lock_guard lock(mutex_);
  const Place at = place(page);
  if (at.is_idle()) idle_bytes_ -= at.page_bytes;
  at.slab.kept &= ~at.bit();
  kept_bytes_ -= at.page_bytes;
  let_go(at);
}

bool KvCache::is_kept(PageId page) const {
  const std::lock_guard lock(mutex_);
  const Place at = place(page);
  return (at.slab.kept & at.bit()) != 0;
}

bool KvCache::is_idle(PageId page) const {
  const std::lock_guard lock(mutex_);
  return place(page).is_idle();
}

std::byte* KvCache::data(PageId page) const {
  const std::lock_guard lock(mutex_);
  return place(page).address();
}

size_t KvCache::page_bytes(PageId page) const {
  return pools_[page >> 32].page_bytes;  // which never changes: no lock
}

uint64_t KvCache::idle_bytes() const {
  const std::lock_guard lock(mutex_);
  return idle_bytes_;
}

KvCacheFigures KvCache::figures() const {
  const std::lock_guard lock(mutex_);
  KvCacheFigures figures{.reserved_bytes = reserved_bytes_,
                         .besides_bytes = besides_bytes_,
                         .kept_bytes = kept_bytes_,
                         .idle_bytes = idle_bytes_,
                         .used_bytes = used_bytes_,
                         .held_bytes = 0};
  for (const Pool& pool : pools_) {
    for (const Slab& slab : pool.slabs) figures.held_bytes += slab.memory.size_bytes();
  }
  return figures;
}

}  // namespace edge
