#include <pthread.h>
#include <signal.h>

#include <new>

#include "base/os_thread.h"

namespace edge {

static_assert(sizeof(pthread_t) <= sizeof(uintptr_t));

namespace {

struct Start {
  void (*entry)(void*);
  void* argument;
};

void* run(void* raw) {
  const Start start = *static_cast<Start*>(raw);
  delete static_cast<Start*>(raw);
  start.entry(start.argument);
  return nullptr;
}

}  // namespace

OsThread start_thread(size_t stack_bytes, void (*entry)(void*), void* argument) {
  Start* start = new (std::nothrow) Start{entry, argument};
  if (start == nullptr) return {};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, stack_bytes);
  sigset_t all, saved;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &saved);  // inherited by the new thread
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, run, start);
  pthread_sigmask(SIG_SETMASK, &saved, nullptr);
  pthread_attr_destroy(&attributes);
  if (error != 0) {
    delete start;
    return {};
  }
  return {(uintptr_t)thread, true};  // pthread_t is an integer or a pointer, by platform
}

void join_thread(OsThread thread) {
  if (thread.started) pthread_join((pthread_t)thread.handle, nullptr);
}

void register_fork_handlers(void (*before)(), void (*in_parent)(), void (*in_child)()) {
  pthread_atfork(before, in_parent, in_child);
}

}  // namespace edge
