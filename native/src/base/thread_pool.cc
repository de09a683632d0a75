#include "base/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#include "base/fp_env.h"
#include "base/inline.h"
#include "base/os.h"
#include "base/os_thread.h"

namespace edge {

namespace {

constexpr size_t kWorkerStackBytes = size_t{1} << 20;
constexpr int kSpinIterations = 4000;  // about 50 us of pauses before a worker parks
constexpr int kMaxThreads = 256;
constexpr size_t kLineBytes = 64;
constexpr int kLinesAtOnce = 8;  // between two looks at whether there is work

inline void cpu_pause() {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

thread_local bool t_inside_unit = false;  // nested calls run serially

// What a waiting thread fetches, and how far it is.
class Fetcher {
 public:
  // An expectation that still holds is gone on with, not begun again.
  void expect(ReadAhead ahead) {
    if (ahead.begin == ahead_.begin) return;
    ahead_ = ahead;
    next_ = 0;
  }
  // A few lines; false when there are none left.
  bool fetch_some() {
    if (next_ >= ahead_.n_bytes) return false;
    for (int i = 0; i < kLinesAtOnce; ++i, next_ += kLineBytes) {
      EDGE_PREFETCH_L2(ahead_.begin + next_);
    }
    return true;
  }

 private:
  ReadAhead ahead_;
  size_t next_ = 0;
};

// The units of one thread, on a cache line of their own.
struct alignas(64) Share {
  std::atomic<int64_t> next_unit{0};
  int64_t end = 0;
};

// One call of pool_run. Lives on the caller's stack: workers may touch it only between joining
// (n_inside incremented under the pool's lock-free protocol) and leaving.
struct Job {
  UnitFn fn;
  void* context;
  int n_threads;                        // at most this many threads, the caller included
  Share* shares;                        // [n_threads]
  std::span<const ReadAhead> expected;  // [n_threads], or fewer

  ReadAhead expected_by(int thread) const {
    const auto at = static_cast<size_t>(thread);
    return at < expected.size() ? expected[at] : ReadAhead{};
  }

  // A thread's own share is one stretch of units, hence of memory, which the prefetchers of its
  // core follow: decode is 2 to 5 % faster than with units claimed alternately. Then it helps the
  // others.
  void work(int thread) {
    t_inside_unit = true;
    for (int i = 0; i < n_threads; ++i) {
      Share& share = shares[(thread + i) % n_threads];
      for (;;) {
        const int64_t unit = share.next_unit.fetch_add(1, std::memory_order_relaxed);
        if (unit >= share.end) break;
        fn(context, unit, thread);
      }
    }
    t_inside_unit = false;
  }
};

class Pool {
 public:
  void run(Job& job, int64_t n_units) {
    std::lock_guard<std::mutex> turn(turn_);
    start_workers(job.n_threads - 1);
    job.shares = shares_;
    for (int thread = 0; thread < job.n_threads; ++thread) {
      Share& share = shares_[thread];
      share.next_unit.store(first_unit(thread, job.n_threads, n_units), std::memory_order_relaxed);
      share.end = first_unit(thread + 1, job.n_threads, n_units);
    }
    // Publishing: workers join while n_inside_ is counted, so the job outlives every joiner.
    job_.store(&job, std::memory_order_seq_cst);
    generation_.fetch_add(1, std::memory_order_seq_cst);
    if (n_parked_.load(std::memory_order_seq_cst) > 0) {
      std::lock_guard<std::mutex> lock(park_mutex_);
      park_.notify_all();
    }
    job.work(0);
    job_.store(nullptr, std::memory_order_seq_cst);
    fetcher_.expect(job.expected_by(0));
    int spins = 0;
    while (n_inside_.load(std::memory_order_seq_cst) != 0) {
      if (fetcher_.fetch_some()) continue;
      if (++spins < kSpinIterations) {
        cpu_pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

  void stop() {
    {
      std::lock_guard<std::mutex> lock(park_mutex_);
      stopping_.store(true, std::memory_order_seq_cst);
      generation_.fetch_add(1, std::memory_order_seq_cst);
      park_.notify_all();
    }
    for (const OsThread& worker : workers_) join_thread(worker);
    workers_.clear();
  }

 private:
  void start_workers(int n) {
    while (static_cast<int>(workers_.size()) < n) {
      // Always the same thread of a call, so that it reads the stretches it expected to.
      Seat& seat = seats_[workers_.size()];
      seat = {this, static_cast<int>(workers_.size()) + 1};
      const OsThread worker = start_thread(
          kWorkerStackBytes,
          [](void* at) {
            const Seat& mine = *static_cast<const Seat*>(at);
            mine.pool->work_loop(mine.thread);
          },
          &seat);
      if (!worker.started) return;  // out of threads: those there are do the work
      workers_.push_back(worker);
    }
  }

  void work_loop(int thread) {
    const FpEnvScope fp_env;
    Fetcher fetcher;
    uint64_t seen = 0;
    for (;;) {
      wait_for_work(seen, fetcher);
      seen = generation_.load(std::memory_order_seq_cst);
      if (stopping_.load(std::memory_order_seq_cst)) return;
      n_inside_.fetch_add(1, std::memory_order_seq_cst);
      // A job seen after n_inside_ was raised cannot be freed before it is lowered again.
      Job* job = job_.load(std::memory_order_seq_cst);
      if (job != nullptr && thread < job->n_threads) {
        job->work(thread);
        fetcher.expect(job->expected_by(thread));
      }
      n_inside_.fetch_sub(1, std::memory_order_seq_cst);
    }
  }

  void wait_for_work(uint64_t seen, Fetcher& fetcher) {
    for (int spins = 0; spins < kSpinIterations; ++spins) {
      if (generation_.load(std::memory_order_relaxed) != seen) return;
      if (!fetcher.fetch_some()) cpu_pause();
    }
    std::unique_lock<std::mutex> lock(park_mutex_);
    n_parked_.fetch_add(1, std::memory_order_seq_cst);
    park_.wait(lock, [&] { return generation_.load(std::memory_order_seq_cst) != seen; });
    n_parked_.fetch_sub(1, std::memory_order_seq_cst);
  }

  struct Seat {
    Pool* pool;
    int thread;
  };

  std::mutex turn_;  // one job at a time
  Share shares_[kMaxThreads];
  Seat seats_[kMaxThreads] = {};
  Fetcher fetcher_;  // of the caller
  std::vector<OsThread> workers_;
  std::atomic<Job*> job_{nullptr};
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> n_inside_{0};
  std::atomic<int> n_parked_{0};
  std::atomic<bool> stopping_{false};
  std::mutex park_mutex_;
  std::condition_variable park_;
};

// Leaked on purpose and replaced after fork(): a child has no workers, only the parent's memory.
std::atomic<Pool*> g_pool{nullptr};
std::mutex g_pool_mutex;

void stop_pool() {
  if (Pool* pool = g_pool.exchange(nullptr)) {
    pool->stop();
    delete pool;
  }
}

void before_fork() { g_pool_mutex.lock(); }
void after_fork_in_parent() { g_pool_mutex.unlock(); }
void after_fork_in_child() {
  g_pool.store(nullptr);
  t_inside_unit = false;
  g_pool_mutex.unlock();
}

Pool& pool() {
  if (Pool* existing = g_pool.load(std::memory_order_acquire)) return *existing;
  std::lock_guard<std::mutex> lock(g_pool_mutex);
  if (g_pool.load() == nullptr) {
    static const bool registered = [] {
      register_fork_handlers(before_fork, after_fork_in_parent, after_fork_in_child);
      std::atexit(stop_pool);
      return true;
    }();
    static_cast<void>(registered);
    g_pool.store(new Pool, std::memory_order_release);
  }
  return *g_pool.load();
}

}  // namespace

void pool_run(int n_threads, int64_t n_units, UnitFn fn, void* context,
              std::span<const ReadAhead> expected) {
  if (n_units <= 0) return;
  n_threads = n_threads < kMaxThreads ? n_threads : kMaxThreads;
  if (n_threads > n_units) n_threads = static_cast<int>(n_units);
  if (n_threads <= 1 || t_inside_unit) {
    for (int64_t unit = 0; unit < n_units; ++unit) fn(context, unit, 0);
    return;
  }
  Job job{.fn = fn,
          .context = context,
          .n_threads = n_threads,
          .shares = nullptr,
          .expected = expected};
  pool().run(job, n_units);
}

int default_n_threads() {
  int n = static_cast<int>(physical_core_cpus().size());
  const int usable = n_usable_cpus();
  const int quota = n_quota_cpus();
  if (n <= 0 || n > usable) n = usable;
  if (quota > 0 && n > quota) n = quota;
  return n > 0 ? n : 1;
}

}  // namespace edge
