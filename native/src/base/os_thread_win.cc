#include <windows.h>

#include <new>

#include "base/os_thread.h"

namespace edge {

namespace {

struct Start {
  void (*entry)(void*);
  void* argument;
};

DWORD WINAPI run(LPVOID raw) {
  const Start start = *static_cast<Start*>(raw);
  delete static_cast<Start*>(raw);
  start.entry(start.argument);
  return 0;
}

}  // namespace

OsThread start_thread(size_t stack_bytes, void (*entry)(void*), void* argument) {
  Start* start = new (std::nothrow) Start{entry, argument};
  if (start == nullptr) return {};
  HANDLE thread =
      CreateThread(nullptr, stack_bytes, run, start, STACK_SIZE_PARAM_IS_A_RESERVATION, nullptr);
  if (thread == nullptr) {
    delete start;
    return {};
  }
  return {reinterpret_cast<uintptr_t>(thread), true};
}

void join_thread(OsThread thread) {
  if (!thread.started) return;
  HANDLE handle = reinterpret_cast<HANDLE>(thread.handle);
  WaitForSingleObject(handle, INFINITE);
  CloseHandle(handle);
}

void register_fork_handlers(void (*)(), void (*)(), void (*)()) {}

}  // namespace edge
