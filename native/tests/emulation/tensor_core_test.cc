// The emulated tensor cores: products are those of plain loops, and every planted bug is caught.
#include <cstdlib>
#include <memory>
#include <random>
#include <string>

#include "doctest/doctest.h"
#include "emulation/tensor_mutants.h"
#include "lockstep.h"
#include "outcome.h"

using edge::cuda::TensorBug;
using lockstep::Order;

namespace {

constexpr int kSteps = 3, kRows = 16, kCols = 8, kDepth = 32;

// On the heap, so that AddressSanitizer sees the byte beyond.
std::unique_ptr<int8_t[]> some_bytes(std::mt19937& rng, int n) {
  std::unique_ptr<int8_t[]> bytes(new int8_t[static_cast<size_t>(n)]);
  for (int i = 0; i < n; ++i) bytes[static_cast<size_t>(i)] = static_cast<int8_t>(rng() % 256);
  return bytes;
}

bool products_are_right(TensorBug bug, Order order) {
  std::mt19937 rng(5);
  const auto a = some_bytes(rng, kSteps * kRows * kDepth);
  const auto b = some_bytes(rng, kSteps * kCols * kDepth);
  int32_t sums[2][kRows][kCols] = {};
  lockstep::set_order(order, 3);
  edge::cuda::run_products(bug, a.get(), b.get(), kSteps, sums[0][0]);
  lockstep::set_order(Order::kForward);
  for (int row = 0; row < kRows; ++row) {
    for (int col = 0; col < kCols; ++col) {
      int32_t sum = 0;
      for (int i = 0; i < kSteps * kDepth; ++i) {
        const int step = i / kDepth, k = i % kDepth;
        const int of_a = (step * kRows + row) * kDepth + k;
        const int of_b = (step * kCols + col) * kDepth + k;
        sum += a[static_cast<size_t>(of_a)] * b[static_cast<size_t>(of_b)];
      }
      if (sums[0][row][col] != sum || sums[1][row][col] != sum) return false;
    }
  }
  return true;
}

struct Planted {
  TensorBug bug;
  const char* by;  // what says so; "": a wrong result
};
const Planted kPlanted[] = {
    {TensorBug::kRowsOfASwapped, ""},
    {TensorBug::kHalvesOfBSwapped, ""},
    {TensorBug::kSumsTransposed, ""},
    {TensorBug::kSwizzledOnOneSide, ""},
    {TensorBug::kMatricesOfTheNextRow, ""},
    {TensorBug::kMissingWait, ""},
    {TensorBug::kMissingBarrier, ""},
    {TensorBug::kMissingSecondBarrier, ""},
    {TensorBug::kHalfAWarp, "warp operation"},
    {TensorBug::kLanesApart, "lanes at different warp operations"},
    {TensorBug::kNotAligned, "an address that is not aligned"},
    {TensorBug::kNeverWaits, "copies that nothing waited for"},
#if defined(__SANITIZE_ADDRESS__)
    {TensorBug::kCopiesBeyond, "heap-buffer-overflow"},
#endif
};

}  // namespace

TEST_CASE("products of tensor cores are those of plain loops in every order") {
  for (const Order order : edge::test::kOrders) CHECK(products_are_right(TensorBug::kNone, order));
}

TEST_CASE("every bug planted in a kernel for tensor cores is caught in one of the orders") {
  for (const Planted& planted : kPlanted) {
    CAPTURE(static_cast<int>(planted.bug));
    CHECK(edge::test::is_caught(
        planted.by, [&](Order order) { return products_are_right(planted.bug, order); }));
  }
}
