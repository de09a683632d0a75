#include "runtime/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "backends/kv_layout.h"
#include "base/checked.h"
#include "runtime/mib_text.h"

namespace edge {
namespace {

constexpr size_t kSlabBytes = size_t{1} << 20;  // about what one request to the OS is worth

}  // namespace

KvCache::KvCache(size_t page_bytes, uint64_t budget_bytes)
    : page_bytes_(page_bytes),
      budget_bytes_(budget_bytes),
      slab_pages_(std::clamp(kSlabBytes / page_bytes, size_t{1}, kMaxSlabPages)) {}

Status KvCache::reserve(int n_pages) {
  const std::lock_guard lock(mutex_);
  const uint64_t n_wanted = n_reserved_ + static_cast<uint64_t>(n_pages);
  const auto wanted_bytes = checked_mul(n_wanted, page_bytes_);
  if (!wanted_bytes || *wanted_bytes > budget_bytes_ - claimed_bytes_) {
    const uint64_t free_bytes = budget_bytes_ - claimed_bytes_ - n_reserved_ * page_bytes_;
    const uint64_t n_fit = free_bytes / page_bytes_;
    return {Code::kMemoryBudget,
            "the KV cache needs " +
                mib_text(
                    checked_mul(static_cast<uint64_t>(n_pages), page_bytes_).value_or(UINT64_MAX)) +
                " and " + mib_text(free_bytes) + " are left; use an n_ctx of at most " +
                std::to_string(n_fit * kPageTokens) +
                " (prompt and new tokens together), close other sessions or raise max_memory"};
  }
  n_reserved_ = n_wanted;
  return Status::ok();
}

void KvCache::unreserve(int n_pages) {
  const std::lock_guard lock(mutex_);
  n_reserved_ -= static_cast<uint64_t>(n_pages);
}

Status KvCache::claim(uint64_t n_bytes, std::string_view what) {
  const std::lock_guard lock(mutex_);
  const uint64_t free_bytes = budget_bytes_ - claimed_bytes_ - n_reserved_ * page_bytes_;
  if (n_bytes > free_bytes) {
    return {Code::kMemoryBudget, std::string(what) + " needs " + mib_text(n_bytes) + " and " +
                                     mib_text(free_bytes) +
                                     " are left; close sessions or raise max_memory"};
  }
  claimed_bytes_ += n_bytes;
  return Status::ok();
}

void KvCache::unclaim(uint64_t n_bytes) {
  const std::lock_guard lock(mutex_);
  claimed_bytes_ -= n_bytes;
}

Result<PageId> KvCache::take() {
  const std::lock_guard lock(mutex_);
  size_t s = 0;
  while (s < slabs_.size() && slabs_[s].n_used == slab_pages_) ++s;
  if (s == slabs_.size()) slabs_.emplace_back();
  Slab& slab = slabs_[s];
  if (slab.n_used == 0) {
    EDGE_ASSIGN_OR_RETURN(slab.memory, PageBuffer::allocate(slab_pages_ * page_bytes_));
    slab.dirty = 0;
  }
  size_t i = 0;
  while (slab.owners[i] != 0) ++i;
  const PageId page = static_cast<PageId>(s * slab_pages_ + i);
  const uint64_t bit = uint64_t{1} << i;
  if ((slab.dirty & bit) != 0) std::memset(page_address(page), 0, page_bytes_);
  slab.dirty |= bit;
  slab.owners[i] = 1;
  ++slab.n_used;
  ++n_used_;
  return page;
}

void KvCache::retain(PageId page) {
  const std::lock_guard lock(mutex_);
  ++slabs_[page / slab_pages_].owners[page % slab_pages_];
}

void KvCache::release(PageId page) {
  const std::lock_guard lock(mutex_);
  Slab& slab = slabs_[page / slab_pages_];
  uint32_t& n_owners = slab.owners[page % slab_pages_];
  if (--n_owners != 0) return;
  --n_used_;
  if (--slab.n_used == 0) slab.memory = PageBuffer();
}

std::byte* KvCache::page_address(PageId page) const {
  return slabs_[page / slab_pages_].memory.data() + (page % slab_pages_) * page_bytes_;
}

std::byte* KvCache::data(PageId page) const {
  const std::lock_guard lock(mutex_);
  return page_address(page);
}

KvCacheFigures KvCache::figures() const {
  const std::lock_guard lock(mutex_);
  KvCacheFigures figures;
  figures.reserved_bytes = n_reserved_ * page_bytes_;
  figures.used_bytes = n_used_ * page_bytes_;
  for (const Slab& slab : slabs_) figures.held_bytes += slab.memory.size_bytes();
  return figures;
}

}  // namespace edge
