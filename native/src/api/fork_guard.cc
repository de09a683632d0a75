#include "api/fork_guard.h"

#include <mutex>
#include <vector>

#include "base/os_thread.h"

namespace edge::api {
namespace {

struct Registry {
  std::mutex mutex;
  std::vector<ForkAware*> objects;
};

// Never destroyed: fork handlers may run after static destructors.
Registry& registry() {
  static Registry* const kRegistry = new Registry;
  return *kRegistry;
}

void before_fork() {
  registry().mutex.lock();
  for (ForkAware* object : registry().objects) object->before_fork();
}

void after_fork(bool is_child) {
  for (ForkAware* object : registry().objects) object->after_fork(is_child);
  registry().mutex.unlock();
}

bool install_handlers() {
  register_fork_handlers(before_fork, [] { after_fork(false); }, [] { after_fork(true); });
  return true;
}

}  // namespace

void watch_forks(ForkAware& object) {
  static const bool kInstalled = install_handlers();
  static_cast<void>(kInstalled);
  const std::lock_guard lock(registry().mutex);
  registry().objects.push_back(&object);
}

void forget_forks(ForkAware& object) {
  const std::lock_guard lock(registry().mutex);
  std::erase(registry().objects, &object);
}

}  // namespace edge::api
