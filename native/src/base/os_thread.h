// A thread as the pool needs it: all signals blocked (the host's handlers run on the host's
// threads), a stack of known size, joinable. Part of the OS layer: os_thread_posix.cc,
// os_thread_win.cc.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edge {

struct OsThread {
  uintptr_t handle = 0;  // pthread_t or HANDLE; 0 means "not started"
  bool started = false;
};

// Starts entry(argument); `started` is false when the OS refuses another thread.
OsThread start_thread(size_t stack_bytes, void (*entry)(void*), void* argument);
// Waits for the end of a started thread.
void join_thread(OsThread thread);
// Calls the three functions around fork() (POSIX; nothing on Windows).
void register_fork_handlers(void (*before)(), void (*in_parent)(), void (*in_child)());

}  // namespace edge
