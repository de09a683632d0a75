#include "runtime/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "doctest/doctest.h"

namespace edge {

TEST_CASE("pages do not overlap and come zeroed, also when they were used before") {
  constexpr size_t kPageBytes = 4096;
  KvCache cache(kPageBytes, UINT64_MAX);
  std::vector<PageId> pages;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 300; ++i) pages.push_back(cache.take().take());
    std::set<std::byte*> addresses;
    for (const PageId page : pages) addresses.insert(cache.data(page));
    REQUIRE(addresses.size() == pages.size());
    std::byte* previous = nullptr;
    for (std::byte* address : addresses) {
      if (previous != nullptr) REQUIRE(address >= previous + kPageBytes);
      previous = address;
    }
    for (size_t i = static_cast<size_t>(round) * 100; i < pages.size(); ++i) {
      std::byte* data = cache.data(pages[i]);
      REQUIRE(std::all_of(data, data + kPageBytes, [](std::byte b) { return b == std::byte{0}; }));
      std::memset(data, 0xAB, kPageBytes);
    }
    while (pages.size() > static_cast<size_t>(round + 1) * 100) {
      cache.release(pages.back());
      pages.pop_back();
    }
  }
}

TEST_CASE("a page lives until its last owner lets it go, and memory then returns to the system") {
  KvCache cache(size_t{1} << 20, UINT64_MAX);
  const PageId page = cache.take().take();
  cache.retain(page);
  cache.release(page);
  CHECK(cache.figures().used_bytes == size_t{1} << 20);
  cache.release(page);
  CHECK(cache.figures().used_bytes == 0);
  CHECK(cache.figures().held_bytes == 0);
}

TEST_CASE("reservations beyond the budget are refused with what would fit") {
  KvCache cache(1000, 10'500);
  CHECK(cache.reserve(8).is_ok());
  const Status refused = cache.reserve(3);
  CHECK(refused.code() == Code::kMemoryBudget);
  CHECK(refused.message().find("n_ctx of at most 64") != std::string::npos);
  CHECK(cache.reserve(2).is_ok());
  CHECK(cache.figures().reserved_bytes == 10'000);
  cache.unreserve(10);
  CHECK(cache.reserve(10).is_ok());
  CHECK(cache.reserve(INT32_MAX).code() == Code::kMemoryBudget);
}

TEST_CASE("a budget of nothing allows nothing") {
  KvCache cache(1000, 0);
  CHECK(cache.reserve(1).code() == Code::kMemoryBudget);
}

}  // namespace edge
