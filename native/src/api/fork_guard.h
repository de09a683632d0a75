// fork() with models open: a child must not inherit a lock whose owner it does not have, or data
// half-way through a change.
//
// Locks that are held briefly are taken before the fork and dropped on both sides after it. The
// locks of a step and of a session's run are Turns, which the child takes back: a fork waits for
// neither.
#pragma once

namespace edge::api {

class ForkAware {
 public:
  virtual void before_fork() = 0;
  virtual void after_fork(bool is_child) = 0;

 protected:
  ~ForkAware() = default;
};

// `object` must outlive its forget_forks(), which does nothing to one that is not watched.
void watch_forks(ForkAware& object);
void forget_forks(ForkAware& object);

}  // namespace edge::api
