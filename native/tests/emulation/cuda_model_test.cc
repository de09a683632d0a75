// Whole models through the decoder on the emulated CUDA backend: greedy tokens are the CPU's,
// because every bit is.
#include "backends/cpu/cpu_backend.h"
#include "backends/cuda/cuda_backend.h"
#include "doctest/doctest.h"
#include "kernels/kernels.h"
#include "model_check.h"

using namespace edge;

namespace {

std::unique_ptr<Backend> emulated_cuda() {
  auto made = create_cuda_backend(create_cpu_backend(active_kernels(), 1));
  REQUIRE(made.status().message() == "");
  return made.take();
}

}  // namespace

TEST_CASE("a tiny model with a window has the CPU's bits on the CUDA backend") {
  test::check_tiny_models(emulated_cuda);
}

TEST_CASE("the built-in model has the CPU's bits on the CUDA backend") {
  test::check_model(emulated_cuda, EDGE_DEMO_MODEL, 3);
}
