// A backend on a real device, by `make gpu-test` or `make metal-test`: the same checks as emulated
// in CI.
#include <string_view>

#include "backend_ops_check.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/device_library.h"
#include "doctest/doctest.h"
#include "fp8_products_check.h"
#include "kernels/kernels.h"
#include "model_check.h"

using namespace edge;

namespace {

Result<std::unique_ptr<Backend>> open(const char* backend) {
  return open_device_backend(backend, create_cpu_backend(active_kernels(), 1));
}
std::unique_ptr<Backend> on_device() {
  auto made = open(EDGE_DEVICE_BACKEND);
  REQUIRE(made.status().message() == "");
  return made.take();
}
std::unique_ptr<Backend> in_fp8() { return open("cuda-fp8").take(); }

}  // namespace

TEST_CASE("every op has the scalar CPU's bits on this GPU") { test::check_all_shapes(on_device); }

TEST_CASE("the likeliest tokens on this GPU are the sampler's") { test::check_top(on_device); }

TEST_CASE("products of many rows op by op have the scalar CPU's bits on this GPU") {
  test::check_products(on_device);
}

TEST_CASE("a row's bits on this GPU do not depend on the rows beside it") {
  test::check_rows_alone(on_device);
}

TEST_CASE("what is not finite on this GPU is told") { test::check_not_finite(on_device); }

TEST_CASE("whole models have the CPU's bits on this GPU") {
  test::check_tiny_models(on_device);
  test::check_model(on_device, EDGE_DEMO_MODEL, 100);
}

TEST_CASE("float matrices on this GPU, where it has them, are near the CPU's sums") {
  if (std::string_view(EDGE_DEVICE_BACKEND) != "metal") return;
  test::check_float_products(on_device, test::kIntegerFormats);
}

TEST_CASE("products of 8-bit floats on this GPU, where it has them, are those of rounded numbers") {
  if (std::string_view(EDGE_DEVICE_BACKEND) != "cuda") return;
  const auto opened = open("cuda-fp8");
  if (!opened.is_ok()) {
    MESSAGE("NOT RUN: " << opened.status().message());
    return;
  }
  test::check_fp8_products(in_fp8, test::kIntegerFormats, test::kTensorCoreSums);
  test::check_fp8_not_finite(in_fp8);
}
