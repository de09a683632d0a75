#include "runtime/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "doctest/doctest.h"

namespace edge {
namespace {

// One group, without a window.
std::vector<KvGroup> plain(size_t page_bytes) { return {{.window = 0, .page_bytes = page_bytes}}; }

}  // namespace

TEST_CASE("pages do not overlap and come zeroed, also when they were used before") {
  constexpr size_t kPageBytes = 4096;
  KvCache cache(plain(kPageBytes), UINT64_MAX);
  std::vector<PageId> pages;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 300; ++i) pages.push_back(cache.take(0, 1).take());
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
  KvCache cache(plain(size_t{1} << 20), UINT64_MAX);
  const PageId page = cache.take(0, 1).take();
  cache.retain(page);
  cache.release(page);
  CHECK(cache.figures().used_bytes == size_t{1} << 20);
  cache.release(page);
  CHECK(cache.figures().used_bytes == 0);
  CHECK(cache.figures().held_bytes == 0);
}

TEST_CASE("reservations beyond the budget are refused with what would fit") {
  KvCache cache(plain(1000), 10'500);
  CHECK(cache.reserve(8 * 16).is_ok());
  const Status refused = cache.reserve(3 * 16);
  CHECK(refused.code() == Code::kMemoryBudget);
  CHECK(refused.message().find("n_ctx of at most 32") != std::string::npos);
  CHECK(cache.reserve(17).is_ok());
  CHECK(cache.figures().reserved_bytes == 10'000);
  cache.unclaim(2'000);
  cache.unclaim(8'000);
  CHECK(cache.reserve(10 * 16).is_ok());
  CHECK(cache.reserve(INT32_MAX).code() == Code::kMemoryBudget);
}

TEST_CASE("pages of groups have their own size, and one account") {
  const std::vector<KvGroup> groups = {{0, 3000}, {64, 1'500'000}, {512, 100}};
  KvCache cache(groups, UINT64_MAX);
  std::map<std::byte*, size_t> sizes;
  std::vector<std::pair<size_t, PageId>> pages;
  uint64_t n_bytes = 0;
  for (int i = 0; i < 60; ++i) {
    const auto group = static_cast<size_t>(i % 3);
    pages.emplace_back(group, cache.take(group, 1).take());
    std::byte* const data = cache.data(pages.back().second);
    std::memset(data, i, groups[group].page_bytes);
    sizes[data] = groups[group].page_bytes;
    n_bytes += groups[group].page_bytes;
  }
  REQUIRE(sizes.size() == 60);
  for (auto page = sizes.begin(); std::next(page) != sizes.end(); ++page) {
    REQUIRE(page->first + page->second <= std::next(page)->first);
  }
  CHECK(cache.figures().used_bytes == n_bytes);
  for (const auto& [group, page] : pages) cache.release(page);
  CHECK(cache.figures().used_bytes == 0);
  CHECK(cache.figures().held_bytes == 0);
}

TEST_CASE("a reservation counts what windows keep, and what fits is found for them, too") {
  // Beyond 64 + 128 tokens the second group needs no more: 13 pages, where they begin worst.
  const std::vector<KvGroup> groups = {{0, 1000}, {64, 50'000}};
  KvCache cache(groups, 20'000 + 650'000);
  CHECK(cache.reserve(21 * 16).code() == Code::kMemoryBudget);
  CHECK(cache.reserve(21 * 16).message().find("n_ctx of at most 320 ") != std::string::npos);
  CHECK(cache.reserve(20 * 16).is_ok());
  CHECK(cache.figures().reserved_bytes == 670'000);
  cache.unclaim(670'000);
  CHECK(cache.reserve(10 * 16).is_ok());
  CHECK(cache.figures().reserved_bytes == 510'000);
  CHECK(cache.reserve(10 * 16).message().find("n_ctx of at most 48 ") != std::string::npos);
}

TEST_CASE("what is claimed is not there for sessions until it is given back") {
  KvCache cache(plain(1000), 10'500);
  CHECK(cache.reserve(8 * 16).is_ok());
  CHECK(cache.claim(2'500, "the adapter").is_ok());
  CHECK(cache.claim(1, "the adapter").code() == Code::kMemoryBudget);
  CHECK(cache.reserve(1).code() == Code::kMemoryBudget);
  cache.unclaim(8'000);
  CHECK(cache.reserve(9 * 16).code() == Code::kMemoryBudget);
  cache.unclaim(2'500);
  CHECK(cache.reserve(10 * 16).is_ok());
}

TEST_CASE("a budget of nothing allows nothing") {
  KvCache cache(plain(1000), 0);
  CHECK(cache.reserve(1).code() == Code::kMemoryBudget);
}

}  // namespace edge
