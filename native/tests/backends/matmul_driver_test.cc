// The matmul driver: a8x2 is the sum of two rows of the scalar kernel on every instruction set,
// thread count and number of rows, and what it is for: outliers.
#include "backends/cpu/matmul_driver.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "doctest/doctest.h"
#include "kernels/elementwise.h"
#include "quant/decode.h"

namespace edge {
namespace {

constexpr int64_t kCols = 160;
constexpr int64_t kOutputs = 200;  // not a multiple of 16
constexpr int64_t kStride = 208;

struct Matrix {
  std::vector<std::byte> bytes;
  Tensor tensor;

  Matrix(Format format, Act act) {
    tensor = {.format = format, .act = act, .n_rows = kOutputs, .n_cols = kCols};
    const size_t strip = strip_bytes(format, tensor.n_tiles());
    bytes.resize(strip * static_cast<size_t>(tensor.n_strips()));
    std::mt19937 rng(11);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng());
    for (int64_t row = 0; row < kStride; ++row) {
      const float d_row = row < kOutputs ? 0.01f : 0.0f;
      std::byte* at = bytes.data() + strip * static_cast<size_t>(row / 16) + 4 * (row % 16);
      std::memcpy(at, &d_row, sizeof d_row);
    }
    tensor.data = bytes.data();
    tensor.n_bytes = bytes.size();
  }
};

// Random rows, the first columns of which are outliers.
std::vector<float> random_rows(int n_rows) {
  std::mt19937 rng(5);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> x(static_cast<size_t>(n_rows * kCols));
  for (size_t i = 0; i < x.size(); ++i) x[i] = uniform(rng) * (i % kCols % 32 == 0 ? 200.0f : 1.0f);
  return x;
}

// Int8 rows with their memory.
struct Rows {
  std::vector<int8_t> q;
  std::vector<float> d;
  std::vector<int32_t> bias;
  ActRows act;

  Rows(const KernelTable& kernels, const std::vector<float>& x, int n_rows, bool twice)
      : q((twice ? 2 : 1) * x.size()), d(q.size() / 32), bias(q.size() / 16) {
    act.set_rows(n_rows);
    act.set_cols(kCols);
    Int8Rows& rows = twice ? act.a8x2 : act.a8;
    rows.q = q.data();
    rows.d = d.data();
    rows.bias = bias.data();
    const auto quantize =
        twice ? kernels.elementwise->quantize_row_x2 : kernels.elementwise->quantize_row;
    for (int r = 0; r < n_rows; ++r) {
      const int row = twice ? 2 * r : r;
      const int64_t at = rows.block_index(row, 0);
      REQUIRE(quantize(x.data() + r * kCols, kCols, rows.panel_rows(row / kPanelRows),
                       rows.q + 32 * at, rows.d + at, rows.bias + 2 * at));
    }
  }
};

std::vector<float> product(Isa isa, const Matrix& weight, const std::vector<float>& x, int n_rows,
                           int n_threads) {
  const KernelTable& kernels = kernel_table(isa);
  const Rows rows(kernels, x, n_rows, weight.tensor.act == Act::kA8x2);
  std::vector<float> y(static_cast<size_t>(n_rows * kStride), -1.0f);
  MatmulDriver(kernels, n_threads).run({{&weight.tensor, y.data(), kStride}}, rows.act);
  return y;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// From the words of docs/KERNELS.md: each row alone, value and residual each by the scalar kernel.
std::vector<float> defined(const Matrix& weight, const std::vector<float>& x, int n_rows) {
  const KernelTable& scalar = kernel_table(Isa::kScalar);
  std::vector<float> y;
  for (int r = 0; r < n_rows; ++r) {
    const std::vector<float> row(x.begin() + r * kCols, x.begin() + (r + 1) * kCols);
    const Rows pair(scalar, row, 1, true);
    std::vector<float> parts[2];
    for (int part = 0; part < 2; ++part) {
      std::vector<int8_t> q;
      std::vector<float> d;
      std::vector<int32_t> bias;
      for (size_t block = 0; block < kCols / 32; ++block) {
        const size_t at = 2 * block + static_cast<size_t>(part);
        q.insert(q.end(), pair.q.data() + 32 * at, pair.q.data() + 32 * at + 32);
        d.push_back(pair.d[at]);
        bias.insert(bias.end(), {pair.bias[2 * at], pair.bias[2 * at + 1]});
      }
      parts[part].resize(kStride);
      scalar.matmul(weight.tensor.format,
                    Act::kA8)({reinterpret_cast<const uint8_t*>(weight.bytes.data()),
                               weight.tensor.n_strips(), weight.tensor.n_tiles(), q.data(),
                               d.data(), bias.data(), nullptr, 1, parts[part].data(), kStride});
    }
    for (size_t i = 0; i < kStride; ++i) y.push_back(parts[0][i] + parts[1][i]);
  }
  return y;
}

TEST_CASE("a8x2 is the sum of two scalar rows on every level, with any threads and rows") {
  const std::vector<float> x = random_rows(130);
  for (const Format format : {Format::kE4_16, Format::kE8_32}) {
    const Matrix weight(format, Act::kA8x2);
    const std::vector<float> expected = defined(weight, x, 130);
    for (const Isa isa : supported_isas()) {
      CAPTURE(isa_name(isa));
      for (const int n_rows : {1, 2, 7, 8, 9, 16, 17, 63, 64, 65, 130}) {
        CAPTURE(n_rows);
        const std::vector<float> rows(expected.begin(), expected.begin() + n_rows * kStride);
        for (const int n_threads : {1, 3}) {
          CHECK(same_bits(product(isa, weight, x, n_rows, n_threads), rows));
        }
      }
    }
  }
}

TEST_CASE("beside outliers a8x2 has less than a fiftieth of the error of a8") {
  constexpr int kRows = 8;
  const std::vector<float> x = random_rows(kRows);
  double square_errors[2] = {};
  for (const Act act : {Act::kA8, Act::kA8x2}) {
    const Matrix weight(Format::kE4_16, act);
    const std::vector<float> y = product(Isa::kScalar, weight, x, kRows, 1);
    std::vector<float> w(kCols);
    for (int64_t out = 0; out < kOutputs; ++out) {
      decode_rows(weight.tensor, out, 1, w.data());
      for (int r = 0; r < kRows; ++r) {
        double exact = 0;
        for (size_t k = 0; k < kCols; ++k) {
          exact += static_cast<double>(w[k]) *
                   static_cast<double>(x[static_cast<size_t>(r) * kCols + k]);
        }
        const double got = static_cast<double>(y[static_cast<size_t>(r * kStride + out)]);
        square_errors[act == Act::kA8x2] += (got - exact) * (got - exact);
      }
    }
  }
  const double ratio = std::sqrt(square_errors[0] / square_errors[1]);
  MESSAGE("RMS error of a8 is " << ratio << " times that of a8x2");
  CHECK(ratio >= 50);
}

}  // namespace
}  // namespace edge
