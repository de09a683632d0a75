#include "api/fork_guard.h"

#include <algorithm>
#include <vector>

#include "base/os_thread.h"
#include "base/thread_pool.h"

namespace edge::api {
namespace {

struct Locks {
  std::mutex* step;
  std::mutex* cache;
};

struct Registry {
  std::mutex mutex;
  std::vector<Locks> models;
};

// Never destroyed: fork handlers may run after static destructors.
Registry& registry() {
  static Registry* const kRegistry = new Registry;
  return *kRegistry;
}

void before_fork() {
  registry().mutex.lock();
  for (const Locks& locks : registry().models) {
    locks.step->lock();
    locks.cache->lock();
  }
}

void after_fork() {
  for (const Locks& locks : registry().models) {
    locks.cache->unlock();
    locks.step->unlock();
  }
  registry().mutex.unlock();
}

bool install_handlers() {
  // Handlers run in reverse order of registration before a fork. The pool registers its own with
  // its first use: after this, ours run first and may wait for a step that is about to start the
  // pool.
  parallel_for(2, 2, [](int64_t, int) {});
  register_fork_handlers(before_fork, after_fork, after_fork);
  return true;
}

}  // namespace

void register_locks(std::mutex* step, std::mutex* cache) {
  static const bool kInstalled = install_handlers();
  static_cast<void>(kInstalled);
  const std::lock_guard lock(registry().mutex);
  registry().models.push_back({step, cache});
}

void forget_locks(std::mutex* step) {
  const std::lock_guard lock(registry().mutex);
  std::erase_if(registry().models, [step](const Locks& locks) { return locks.step == step; });
}

}  // namespace edge::api
