// What the matmul driver tells waiting threads to fetch: where each of them begins in the weights
// of the next call.
#include <vector>

#include "backends/cpu/matmul_driver.h"
#include "doctest/doctest.h"
#include "quant/tiles.h"

namespace edge {
namespace {

// 256 columns of E4_16; the bytes of each weight follow those of the one before, as in a file.
struct Weights {
  std::vector<std::byte> bytes;
  std::vector<Tensor> tensors;

  explicit Weights(std::initializer_list<int64_t> n_rows) {
    size_t n_bytes = 0;
    for (const int64_t n : n_rows) n_bytes += strip_bytes(Format::kE4_16, 8) * size_of(n);
    bytes.resize(n_bytes);
    size_t at = 0;
    for (const int64_t n : n_rows) {
      Tensor tensor;
      tensor.format = Format::kE4_16;
      tensor.act = Act::kA8;
      tensor.n_rows = n;
      tensor.n_cols = 256;
      tensor.data = bytes.data() + at;
      at += strip_bytes(Format::kE4_16, 8) * size_of(n);
      tensors.push_back(tensor);
    }
  }
  static size_t size_of(int64_t n) { return static_cast<size_t>(n / kTileRows); }
};

// The strip in which an expectation begins, of all strips of the weights.
int64_t first_strip(const Weights& weights, const ReadAhead& ahead) {
  const auto strip = static_cast<int64_t>(strip_bytes(Format::kE4_16, 8));
  const int64_t offset = ahead.begin - weights.bytes.data();
  CHECK(offset % strip == 0);
  return offset / strip;
}

TEST_CASE("each thread expects the stretch of its own units, of several weights in turn") {
  const Weights weights({512, 128, 128});  // 32, 8 and 8 strips
  MatmulDriver driver(active_kernels(), 2);
  const Tensor* w = weights.tensors.data();
  driver.expect({&w[0]}, 1);
  REQUIRE(driver.expected().size() == 2);
  CHECK(first_strip(weights, driver.expected()[0]) == 0);
  CHECK(first_strip(weights, driver.expected()[1]) == 16);
  driver.expect({&w[0], &w[1], &w[2]}, 1);
  // Units of 4, 2 and 2 strips: the second half of 8 + 4 + 4 units begins with w[1].
  CHECK(first_strip(weights, driver.expected()[0]) == 0);
  CHECK(first_strip(weights, driver.expected()[1]) == 32);
  for (const ReadAhead& ahead : driver.expected()) {
    CHECK(ahead.n_bytes > 0);
    CHECK(ahead.begin + ahead.n_bytes <= weights.bytes.data() + weights.bytes.size());
  }
}

TEST_CASE("threads without units of their own expect nothing, and many rows neither") {
  const Weights weights({32});
  MatmulDriver driver(active_kernels(), 3);
  driver.expect({&weights.tensors[0]}, 1);
  REQUIRE(driver.expected().size() == 3);
  CHECK(driver.expected()[0].n_bytes > 0);
  CHECK(driver.expected()[1].n_bytes == 0);
  driver.expect({&weights.tensors[0]}, kMaxKRows + 1);
  CHECK(driver.expected().empty());
}

}  // namespace
}  // namespace edge
