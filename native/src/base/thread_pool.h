// The one process-wide pool of worker threads.
//
// run() splits a call into fixed units. Every thread claims its own stretch of them one by one,
// then helps where others are behind; results never depend on who claims what. The caller is one of
// the threads. Workers spin briefly, then park; they block all signals, have 1 MiB stacks and run
// with the default floating-point environment. After fork() a child starts a new pool lazily.
// Joined at exit, never by a static destructor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace edge {

// Memory that a thread will read in a call to come.
struct ReadAhead {
  const std::byte* begin = nullptr;
  size_t n_bytes = 0;
};

// Called as fn(context, unit, thread) with 0 <= unit < n_units, 0 <= thread < n_threads.
using UnitFn = void (*)(void* context, int64_t unit, int thread);

// Runs all units on up to `n_threads` threads (the caller included) and returns when all are done.
// Nested calls from inside a unit run serially. Concurrent calls from several threads are allowed
// and take turns.
//
// expected[t] is what thread t will read first in a call to come: when it is done before the others
// or before the next call, it fetches that into its L2 meanwhile. The addresses need not be valid.
void pool_run(int n_threads, int64_t n_units, UnitFn fn, void* context,
              std::span<const ReadAhead> expected = {});

// The first unit of a thread's own stretch.
constexpr int64_t first_unit(int thread, int n_threads, int64_t n_units) {
  return n_units * thread / n_threads;
}

template <class F>
void parallel_for(int n_threads, int64_t n_units, F&& body,
                  std::span<const ReadAhead> expected = {}) {
  pool_run(
      n_threads, n_units,
      [](void* context, int64_t unit, int thread) {
        (*static_cast<std::remove_reference_t<F>*>(context))(unit, thread);
      },
      const_cast<void*>(static_cast<const void*>(&body)), expected);
}

// Physical performance cores within affinity and the cgroup quota; at least 1.
int default_n_threads();

}  // namespace edge
