// Whether this machine has a Vulkan device that will do. Where EDGELLM_REQUIRE_VULKAN is set
// (`make vulkan-test`), it must.
#pragma once

#include <cstdio>
#include <cstdlib>

#include "backends/vulkan/driver.h"
#include "doctest/doctest.h"

namespace edge::test {

inline bool has_vulkan() {
  const Status status = vulkan::open_driver();
  if (std::getenv("EDGELLM_REQUIRE_VULKAN") != nullptr) REQUIRE(status.message() == "");
  if (!status.is_ok()) std::printf("NOT TESTED: %s\n", status.message().c_str());
  return status.is_ok();
}

}  // namespace edge::test
