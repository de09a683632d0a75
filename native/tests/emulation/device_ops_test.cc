// The kernels of every emulated backend, run in every order of threads: the scalar CPU's bits.
#include <array>

#include "backend_ops_check.h"
#include "doctest/doctest.h"
#include "emulated.h"
#include "float_products_check.h"
#include "lockstep.h"

using namespace edge;

namespace {

template <class F>
void on_every_device(const F& check) {
  for (const test::Emulated& emulated : test::kEmulated) {
    const std::string name = emulated.name;
    CAPTURE(name);
    check(emulated.make);
  }
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

TEST_CASE("every op has the scalar CPU's bits, in every order of threads") {
  in_every_order([] { on_every_device(test::check_all_shapes); });
}

TEST_CASE("the likeliest tokens are the sampler's, in every order of threads") {
  in_every_order([] { on_every_device(test::check_top); });
}

TEST_CASE("products of many rows have the scalar CPU's bits, in every order of threads") {
  in_every_order([] { on_every_device(test::check_products); });
}

TEST_CASE("a row's bits do not depend on the rows beside it") {
  on_every_device(test::check_rows_alone);
}

TEST_CASE("what is not finite is told, and the next step is right") {
  in_every_order([] { on_every_device(test::check_not_finite); });
}

TEST_CASE("float matrices, where they are asked for, are near the CPU's sums") {
  test::check_float_products(test::emulated_metal, test::kIntegerFormats);
  in_every_order(
      [] { test::check_float_products(test::emulated_metal, std::array{Format::kE4_16}); });
}
