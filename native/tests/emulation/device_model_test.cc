// Whole models through the decoder on every emulated backend: greedy tokens are the CPU's, because
// every bit is.
#include "doctest/doctest.h"
#include "emulated.h"
#include "model_check.h"

using namespace edge;

TEST_CASE("a tiny model with a window has the CPU's bits on every device") {
  for (const test::Emulated& emulated : test::kEmulated) test::check_tiny_models(emulated.make);
}

TEST_CASE("the built-in model has the CPU's bits on every device") {
  for (const test::Emulated& emulated : test::kEmulated) {
    test::check_model(emulated.make, EDGE_DEMO_MODEL, 3);
  }
}
