// What every public entry does: default floating-point state, Status to exception, bad_alloc to a
// typed error. The one place where exceptions begin.
#pragma once

#include <new>
#include <utility>

#include "base/fp_env.h"
#include "base/status.h"
#include "edgellm/engine.h"

namespace edge::api {

[[noreturn]] inline void raise(Code code, const std::string& message) {
  throw edgellm::Error(code_name(code), code_class(code), message);
}

inline void check(const Status& status) {
  if (!status.is_ok()) raise(status.code(), status.message());
}

template <class T>
T take_or_throw(Result<T> result) {
  check(result.status());
  return result.take();
}

// Runs `body` as a public entry.
template <class F>
decltype(auto) entry(F&& body) {
  const FpEnvScope fp_env;
  try {
    return std::forward<F>(body)();
  } catch (const std::bad_alloc&) {
    raise(Code::kOutOfMemory, "the system has no more memory; use a smaller n_ctx or model");
  } catch (const std::length_error&) {
    raise(Code::kOutOfMemory, "a buffer larger than the address space was asked for");
  }
}

}  // namespace edge::api
