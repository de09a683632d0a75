// GPTQ's search: the same bits on every ISA and thread count, and errors that add up.
// tests/converters compares its codes with the textbook's.
#include "kernels/gptq.h"

#include <cmath>
#include <random>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/gptq_kernels.h"
#include "kernels/kernels.h"
#include "quant/tiles.h"

namespace edge {
namespace {

constexpr Format kSearched[] = {Format::kE2_16, Format::kE3_32, Format::kE4_16,
                                Format::kE4_32, Format::kE6_16, Format::kE8_32};
constexpr int64_t kRows = 21;  // a strip and a part of one
constexpr int64_t kCols = 64;

std::vector<float> normals(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> values(n);
  for (float& value : values) value = normal(rng);
  return values;
}

// An upper triangle with a dominant diagonal: any such matrix is some Hessian's factor.
std::vector<float> random_upper(int64_t n, uint32_t seed) {
  std::vector<float> upper = normals(static_cast<size_t>(n * n), seed);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float& u = upper[static_cast<size_t>(i * n + j)];
      if (j < i) u = 0;
      if (j == i) u = 1.0f + std::fabs(u);
      if (j > i) u *= 0.2f;
    }
  }
  return upper;
}

struct Codes {
  std::vector<uint8_t> scale_bytes;
  std::vector<int8_t> levels;
  std::vector<float> moved;
  bool operator==(const Codes&) const = default;
};

struct Problem {
  explicit Problem(Format format_in)
      : format(format_in), group(columns_per_scale(format_in)), d_row(kRows, 1.0f / 127 / 32) {
    for (int64_t k = 0; k < kCols; ++k) target[static_cast<size_t>(3 * kCols + k)] = 0;
    for (int64_t k = 32; k < 64; ++k) target[static_cast<size_t>(5 * kCols + k)] = 0;
    target[7 * kCols] = 30.0f;  // beyond what d_row can say
  }

  GptqBlock block(Codes& codes) const {
    return {.format = format,
            .n_rows = kRows,
            .n_cols = kCols,
            .d_row = d_row.data(),
            .scale_bytes = codes.scale_bytes.data(),
            .levels = codes.levels.data()};
  }

  Codes sweep(Isa isa, int n_threads = 1) const {
    Codes codes{std::vector<uint8_t>(static_cast<size_t>(kRows * kCols / group)),
                std::vector<int8_t>(target.size()), std::vector<float>(target.size())};
    const Status status = gptq_sweep_with(*kernel_table(isa).gptq, block(codes), target.data(),
                                          upper.data(), codes.moved.data(), n_threads);
    REQUIRE(status.message() == "");
    return codes;
  }

  Codes descend(Isa isa, Codes codes, int n_threads = 1) const {
    std::vector<float> errors(target.size());
    for (size_t i = 0; i < target.size(); ++i) errors[i] = target[i] - quantized(codes, i);
    // The Hessian is the identity plus ones: all columns pull at each other alike.
    std::vector<float> hessian(kCols * kCols, 0.1f);
    for (size_t k = 0; k < kCols; ++k) hessian[k * kCols + k] = 1.1f;
    std::vector<float> pulls(target.size());
    for (size_t row = 0; row < kRows; ++row) {
      float sum = 0;
      for (size_t k = 0; k < kCols; ++k) sum += errors[row * kCols + k];
      for (size_t k = 0; k < kCols; ++k) {
        pulls[row * kCols + k] = errors[row * kCols + k] + 0.1f * sum;
      }
    }
    const GptqDescent descent{.weights = target.data(),
                              .errors = errors.data(),
                              .pulls = pulls.data(),
                              .hessian = hessian.data(),
                              .group_uppers = group_uppers.data(),
                              .group_inverses = group_inverses.data()};
    const Status status =
        gptq_descend_with(*kernel_table(isa).gptq, block(codes), descent, n_threads);
    REQUIRE(status.message() == "");
    return codes;
  }

  float quantized(const Codes& codes, size_t index) const {
    const size_t g = static_cast<size_t>(group);
    const int mask = format == Format::kE2_16   ? kE2ZeroMask
                     : format == Format::kE3_32 ? kE3ZeroMask
                                                : 1;
    const int scale = group_scale(codes.scale_bytes[index / g], mask);
    return d_row[index / kCols] * static_cast<float>(scale * codes.levels[index]);
  }

  Format format;
  int group;
  std::vector<float> d_row;
  std::vector<float> target = normals(kRows * kCols, 1);
  std::vector<float> upper = random_upper(kCols, 2);
  std::vector<float> group_uppers = repeated(random_upper(group, 3));
  std::vector<float> group_inverses = repeated(random_upper(group, 4));

 private:
  std::vector<float> repeated(const std::vector<float>& one) const {
    std::vector<float> all;
    for (int64_t g = 0; g < kCols / group; ++g) all.insert(all.end(), one.begin(), one.end());
    return all;
  }
};

TEST_CASE("every instruction set and thread count finds the same codes") {
  for (const Format format : kSearched) {
    CAPTURE(format_name(format));
    const Problem problem(format);
    const Codes swept = problem.sweep(Isa::kScalar);
    const Codes descended = problem.descend(Isa::kScalar, swept);
    CHECK(descended.levels != swept.levels);
    for (const Isa isa : supported_isas()) {
      CAPTURE(isa_name(isa));
      CHECK(problem.sweep(isa) == swept);
      CHECK(problem.descend(isa, swept) == descended);
    }
    CHECK(problem.sweep(supported_isas().front(), 2) == swept);
    CHECK(problem.descend(supported_isas().front(), swept, 2) == descended);
  }
}

TEST_CASE("what is left of a sweep is what it moved") {
  const Problem problem(Format::kE4_16);
  const Codes codes = problem.sweep(supported_isas().front());
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t k = 0; k < kCols; ++k) {  // target - quantized = moved x upper
      double sum = 0;
      for (size_t j = 0; j <= k; ++j) {
        sum += double{codes.moved[row * kCols + j]} * double{problem.upper[j * kCols + k]};
      }
      const size_t i = row * kCols + k;
      const double error = double{problem.target[i]} - double{problem.quantized(codes, i)};
      CHECK(error == doctest::Approx(sum).epsilon(1e-4));
    }
  }
}

TEST_CASE("what cannot be searched is refused") {
  Problem problem(Format::kE4_32);
  Codes codes = problem.sweep(Isa::kScalar);
  const auto code = [&](GptqBlock block) {
    return gptq_sweep(block, problem.target.data(), problem.upper.data(), codes.moved.data(), 1)
        .code();
  };
  GptqBlock block = problem.block(codes);
  block.n_cols = 48;
  CHECK(code(block) == Code::kInvalidArgument);
  block.n_cols = kMaxGptqCols + 32;
  CHECK(code(block) == Code::kInvalidArgument);
  block = problem.block(codes);
  block.format = Format::kF16;
  CHECK(code(block) == Code::kInvalidArgument);
}

}  // namespace
}  // namespace edge
