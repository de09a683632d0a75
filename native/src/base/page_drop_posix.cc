#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "base/page_drop.h"

namespace edge {

void drop_mapped_pages(std::span<const std::byte> mapped) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t before = (page - reinterpret_cast<uintptr_t>(mapped.data()) % page) % page;
  if (mapped.size() < before + page) return;
  const size_t n = (mapped.size() - before) / page * page;
  ::madvise(const_cast<std::byte*>(mapped.data()) + before, n, MADV_DONTNEED);
}

}  // namespace edge
