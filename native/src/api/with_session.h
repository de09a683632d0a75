// How every entry to a session begins.
#pragma once

#include <memory>
#include <mutex>

#include "api/guard.h"
#include "api/impl.h"

namespace edgellm {

// Runs body(edge::Session&) under the session's lock; what it returns is returned.
template <class Impl, class F>
auto with_session(const std::shared_ptr<Impl>& impl, F&& body) {
  return edge::api::entry([&] {
    const std::lock_guard lock(impl->turn);
    return body(impl->open_session());
  });
}

}  // namespace edgellm
