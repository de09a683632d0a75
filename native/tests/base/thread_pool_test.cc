#include "base/thread_pool.h"

#include <atomic>
#include <thread>
#include <vector>

#include "doctest/doctest.h"

using namespace edge;

TEST_CASE("every unit runs exactly once, on a thread below the cap") {
  for (const int n_threads : {1, 2, 3, 8}) {
    for (const int64_t n_units : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(n_units));
      std::atomic<bool> thread_in_range{true};
      parallel_for(n_threads, n_units, [&](int64_t unit, int thread) {
        runs[static_cast<size_t>(unit)].fetch_add(1);
        if (thread < 0 || thread >= n_threads) thread_in_range = false;
      });
      CHECK(thread_in_range);
      for (const auto& n : runs) CHECK(n == 1);
    }
  }
}

TEST_CASE("two units never share a thread number at the same time") {
  std::vector<std::atomic<int>> busy(4);
  std::atomic<bool> shared{false};
  parallel_for(4, 400, [&](int64_t, int thread) {
    if (busy[static_cast<size_t>(thread)].fetch_add(1) != 0) shared = true;
    std::this_thread::yield();
    busy[static_cast<size_t>(thread)].fetch_sub(1);
  });
  CHECK_FALSE(shared);
}

TEST_CASE("a call from inside a unit runs serially and completes") {
  std::atomic<int> inner{0};
  parallel_for(2, 10, [&](int64_t, int) {
    parallel_for(2, 10, [&](int64_t, int thread) {
      if (thread == 0) inner.fetch_add(1);
    });
  });
  CHECK(inner == 100);
}

TEST_CASE("calls from several threads take turns and all complete") {
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        parallel_for(2, 20, [&](int64_t unit, int) { sum.fetch_add(unit); });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(sum == 4 * 50 * 190);
}

TEST_CASE("parked workers wake for the next call") {
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));  // longer than workers spin
    std::atomic<int> n{0};
    parallel_for(2, 8, [&](int64_t, int) { n.fetch_add(1); });
    CHECK(n == 8);
  }
}

TEST_CASE("what threads expect to read is fetched and not read: no address is wrong") {
  const auto* nowhere = reinterpret_cast<const std::byte*>(uintptr_t{4096});
  const ReadAhead expected[] = {{nowhere, size_t{1} << 20}, {nowhere, size_t{1} << 20}};
  std::atomic<int> n_run{0};
  for (int call = 0; call < 100; ++call) {
    parallel_for(2, 8, [&](int64_t, int) { ++n_run; }, expected);
  }
  CHECK(n_run == 800);
}

TEST_CASE("there is at least one thread by default") { CHECK(default_n_threads() >= 1); }
