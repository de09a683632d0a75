// The CUDA backend's kernels, run by the emulator in every order of threads: the scalar CPU's bits.
#include "backend_ops_check.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/cuda/cuda_backend.h"
#include "doctest/doctest.h"
#include "kernels/kernels.h"
#include "lockstep.h"

using namespace edge;

namespace {

std::unique_ptr<Backend> emulated_cuda() {
  auto made = create_cuda_backend(create_cpu_backend(active_kernels(), 1));
  REQUIRE(made.status().message() == "");
  return made.take();
}

template <class F>
void in_every_order(const F& body) {
  using lockstep::Order;
  for (const Order order : {Order::kForward, Order::kReverse, Order::kShuffled}) {
    CAPTURE(static_cast<int>(order));
    lockstep::set_order(order, 11);
    body();
  }
  lockstep::set_order(Order::kForward);
}

}  // namespace

TEST_CASE("every op of the CUDA backend has the scalar CPU's bits, in every order of threads") {
  in_every_order([] { test::check_all_shapes(emulated_cuda); });
}

TEST_CASE("a row's bits on the CUDA backend do not depend on the rows beside it") {
  test::check_rows_alone(emulated_cuda);
}

TEST_CASE("the CUDA backend tells what is not finite, and recovers") {
  in_every_order([] { test::check_not_finite(emulated_cuda); });
}
