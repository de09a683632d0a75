// Turn: a lock that the child of a fork() can take from an owner it does not have. A std::mutex
// that another thread held at the fork is lost in the child; to hold every mutex across the fork
// instead would make it wait for the work under way, and for ever if that work waits for the
// forking thread (CPython forks with its global lock held). Not recursive; waiting threads sleep.
#pragma once

#include <atomic>

namespace edge {

class Turn {
 public:
  void lock() {
    while (is_taken_.exchange(1, std::memory_order_acquire) != 0) is_taken_.wait(1);
  }
  void unlock() {
    is_taken_.store(0, std::memory_order_release);
    is_taken_.notify_one();
  }
  // In the child of a fork(), before it starts a thread: frees the lock and says whether it was
  // taken, hence what it guards may be half-way through a change.
  bool take_back() { return is_taken_.exchange(0, std::memory_order_acquire) != 0; }

 private:
  std::atomic<int> is_taken_{0};
};

}  // namespace edge
