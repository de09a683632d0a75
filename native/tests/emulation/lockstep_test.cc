// The emulator itself: what is right passes in every order, and every planted bug is caught, by a
// wrong result in one of the orders, by the emulator's own word, or by AddressSanitizer.
#include "lockstep.h"

#include <memory>
#include <string>
#include <vector>

#include "doctest/doctest.h"
#include "emulation/mutants.h"
#include "outcome.h"

using edge::cuda::Bug;
using lockstep::Order;

namespace {

constexpr int kRows = 3, kCols = 300;

// Whether every row's sum is right. Whole numbers: exact in any order.
bool sums_are_right(Bug bug, Order order) {
  std::unique_ptr<float[]> x(new float[kRows * kCols]), sums(new float[kRows]);
  for (int i = 0; i < kRows * kCols; ++i) x[i] = static_cast<float>(i % 17 + i / kCols);
  for (int row = 0; row < kRows; ++row) sums[row] = __builtin_nanf("");
  lockstep::set_order(order, 7);
  edge::cuda::run_row_sums(bug, x.get(), kRows, kCols, sums.get());
  lockstep::set_order(Order::kForward);
  for (int row = 0; row < kRows; ++row) {
    float sum = 0;
    for (int col = 0; col < kCols; ++col) sum += x[row * kCols + col];
    if (sums[row] != sum) return false;
  }
  return true;
}

struct Planted {
  Bug bug;
  const char* by;  // what says so; "": a wrong result
};
const Planted kPlanted[] = {
    {Bug::kMissingFirstBarrier, ""},
    {Bug::kMissingSecondBarrier, ""},
    {Bug::kDivergentBarrier, "threads at different barriers"},
    {Bug::kBarrierOfOneWarp, "at different barriers"},
    {Bug::kEndsBeforeBarrier, "barrier that not all threads reach"},
    {Bug::kWarpOpOfHalf, "warp operation with lanes that have ended"},
    {Bug::kDivergentWarpOp, "lanes at different warp operations"},
#if defined(__SANITIZE_ADDRESS__)
    {Bug::kReadsBeyondRow, "heap-buffer-overflow"},
    {Bug::kWritesBeyondShared, "heap-buffer-overflow"},
    {Bug::kWritesBeyondRow, "heap-buffer-overflow"},
#endif
    {Bug::kStaleTail, ""},
    {Bug::kRaceInGroup, ""},
    {Bug::kRaceOfGroups, ""},
};

}  // namespace

TEST_CASE("a kernel without bugs is right in every order") {
  for (const Order order : edge::test::kOrders) CHECK(sums_are_right(Bug::kNone, order));
}

TEST_CASE("every planted bug is caught in one of the orders") {
  for (const Planted& planted : kPlanted) {
    CAPTURE(static_cast<int>(planted.bug));
    CHECK(edge::test::is_caught(planted.by,
                                [&](Order order) { return sums_are_right(planted.bug, order); }));
  }
}
