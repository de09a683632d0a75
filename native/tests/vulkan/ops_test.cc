// Every op and whole models on this machine's Vulkan device, or on Mesa's driver for the CPU where
// it has none: the same checks as other devices pass, `==` throughout.
#include "backend_ops_check.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/device_library.h"
#include "kernels/kernels.h"
#include "model_check.h"
#include "there.h"

using namespace edge;

extern "C" OpenBackendFn edgellm_vulkan_open;

namespace {

std::unique_ptr<Backend> on_vulkan() {
  Status why;
  std::unique_ptr<Backend> backend(edgellm_vulkan_open(
      EDGE_BACKEND_ABI, create_cpu_backend(active_kernels(), 1).release(), &why));
  REQUIRE(why.message() == "");
  return backend;
}

}  // namespace

TEST_CASE("every op has the scalar CPU's bits on Vulkan") {
  if (test::has_vulkan()) test::check_all_shapes(on_vulkan);
}

TEST_CASE("products of many rows op by op have the scalar CPU's bits on Vulkan") {
  if (test::has_vulkan()) test::check_products(on_vulkan);
}

TEST_CASE("a row's bits on Vulkan do not depend on the rows beside it") {
  if (test::has_vulkan()) test::check_rows_alone(on_vulkan);
}

TEST_CASE("what is not finite on Vulkan is told") {
  if (test::has_vulkan()) test::check_not_finite(on_vulkan);
}

TEST_CASE("a tiny model with a window has the CPU's bits on Vulkan") {
  if (test::has_vulkan()) test::check_tiny_models(on_vulkan);
}

TEST_CASE("the built-in model has the CPU's bits on Vulkan") {
  if (test::has_vulkan()) test::check_model(on_vulkan, EDGE_DEMO_MODEL, 3);
}

TEST_CASE("weights that go through staging have the CPU's bits on Vulkan") {
  if (!test::has_vulkan()) return;
  setenv("EDGELLM_VULKAN_STAGING", "1", 1);
  test::check_tiny_models(on_vulkan);
  unsetenv("EDGELLM_VULKAN_STAGING");
}

TEST_CASE("a library of other sources is refused") {
  Status why;
  CHECK(edgellm_vulkan_open("another", create_cpu_backend(active_kernels(), 1).release(), &why) ==
        nullptr);
  CHECK(why.code() == Code::kDeviceUnavailable);
}
