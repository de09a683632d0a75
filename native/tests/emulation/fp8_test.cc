// Backend "cuda-fp8": the emulator's 8-bit floats, products of them, and chips without them.
#include <array>
#include <cmath>
#include <cstdlib>

#include "backends/cuda/cuda_device.h"
#include "cuda/e4m3.h"
#include "doctest/doctest.h"
#include "emulated.h"
#include "fp8_products_check.h"
#include "lockstep.h"
#include "outcome.h"

using namespace edge;
using cuda_on_cpu::e4m3_value;
using cuda_on_cpu::nearest_e4m3;

TEST_CASE("8-bit floats are the table of their definition, and the nearest one is found") {
  // Micikevicius et al. 2022, table 1: S.1111.110 is 448, S.0001.000 is 2^-6, S.0000.001 is 2^-9.
  CHECK(e4m3_value(0x7e) == 448.0f);
  CHECK(e4m3_value(0x08) == 0x1p-6f);
  CHECK(e4m3_value(0x07) == 0.875f * 0x1p-6f);
  CHECK(e4m3_value(0x01) == 0x1p-9f);
  CHECK(e4m3_value(0xb8) == -1.0f);
  CHECK(std::isnan(e4m3_value(0x7f)));
  CHECK(std::isnan(e4m3_value(0xff)));
  for (int code = 0; code < 0x7e; ++code) {
    const float low = e4m3_value(static_cast<uint8_t>(code));
    const float high = e4m3_value(static_cast<uint8_t>(code + 1)), middle = (low + high) / 2;
    const int even = code % 2 == 0 ? code : code + 1;
    REQUIRE(low < high);
    REQUIRE(nearest_e4m3(low) == code);
    REQUIRE(nearest_e4m3(-low) == (code | 0x80));
    REQUIRE(nearest_e4m3(middle) == even);
    REQUIRE(nearest_e4m3(std::nextafter(middle, 0.0f)) == code);
    REQUIRE(nearest_e4m3(std::nextafter(middle, 500.0f)) == code + 1);
  }
  CHECK(nearest_e4m3(1e30f) == 0x7e);
  CHECK(nearest_e4m3(-INFINITY) == 0xfe);
  CHECK(nearest_e4m3(NAN) == 0x7f);
}

TEST_CASE("products of 8-bit floats are those of plain loops over rounded numbers") {
  test::check_fp8_products(test::emulated_cuda_fp8, test::kIntegerFormats, test::kFloatSums);
  for (const lockstep::Order order : test::kOrders) {
    lockstep::set_order(order, 7);
    test::check_fp8_products(test::emulated_cuda_fp8, std::array{Format::kE4_16}, test::kFloatSums);
  }
  lockstep::set_order(lockstep::Order::kForward);
}

TEST_CASE("a scale that is not finite is not lost in 8 bits") {
  test::check_fp8_not_finite(test::emulated_cuda_fp8);
}

TEST_CASE("a chip without 8-bit floats is a clear error, and drives the other backend") {
  setenv("EDGELLM_EMULATED_CAPABILITY", "86", 1);
  const auto without = cuda::open_fp8_device();
  const auto other = cuda::open_device();
  unsetenv("EDGELLM_EMULATED_CAPABILITY");
  CHECK(without.status().code() == Code::kDeviceUnavailable);
  CHECK(without.status().message() ==
        "CUDA: emulated has compute capability 8.6 and 8.9 is the least with 8-bit floats; load "
        "with backend 'cuda'");
  CHECK(other.is_ok());
  CHECK(cuda::open_fp8_device().is_ok());
}
