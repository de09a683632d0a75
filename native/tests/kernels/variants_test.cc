// The row kernels of model variants: every ISA equals scalar bit for bit, and scalar equals double
// arithmetic within stated bounds.
#include "kernels/variants.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/kernels.h"

namespace edge {
namespace {

using Floats = std::vector<float>;

enum Function : size_t { kSilu, kGelu, kGeluTanh, kRelu };  // the order of VariantKernels::activate

Floats random_row(uint32_t seed, int64_t n, float scale) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, scale);
  Floats row(static_cast<size_t>(n));
  for (float& x : row) x = rng() % 16 == 0 ? normal(rng) * 0x1p-130f : normal(rng);
  return row;
}

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Everything one ISA makes of a row of n values; what lies behind the rows must stay 7.
Floats run_all(const VariantKernels& kernels, int64_t n) {
  const auto seed = static_cast<uint32_t>(n);
  const Floats x = random_row(seed, n, 3.0f);
  const Floats w = random_row(seed + 1, n, 1.0f);
  const Floats b = random_row(seed + 2, n, 1.0f);
  Floats results;
  const auto keep = [&](const Floats& row) {
    results.insert(results.end(), row.begin(), row.end());
  };
  const auto n_padded = static_cast<size_t>((n + 31) / 32 * 32);
  for (const auto activate : kernels.activate) {
    for (const float* up : {static_cast<const float*>(nullptr), w.data()}) {
      Floats y(static_cast<size_t>(n) + 1, 7.0f);
      activate(x.data(), up, n, y.data());
      keep(y);
    }
  }
  Floats y(n_padded + 1, 7.0f);
  kernels.layernorm(x.data(), w.data(), b.data(), 1e-5f, n, y.data());
  keep(y);
  Floats capped = x;
  capped.push_back(7.0f);
  kernels.softcap(capped.data(), n, 2.5f);
  keep(capped);
  Floats shares = x;
  shares.push_back(7.0f);
  kernels.softmax(shares.data(), n);
  keep(shares);
  kernels.add_scaled(w.data(), 0.3f, shares.data(), n);
  kernels.normalize(shares.data(), n);
  keep(shares);
  return results;
}

TEST_CASE("every instruction set equals scalar in every variant kernel and row length") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(isa_name(isa));
    for (const int64_t n : {1, 7, 15, 16, 17, 32, 33, 100, 576}) {
      CAPTURE(n);
      CHECK(same_bits(run_all(*kernel_table(isa).variants, n), run_all(kVariants_scalar, n)));
    }
  }
}

// Floats of both signs from tiny to 30, more densely where functions bend.
Floats sweep() {
  Floats x = {0.0f};
  for (double size = 1e-6; size < 30; size *= 1.0007) {
    x.push_back(static_cast<float>(size));
    x.push_back(static_cast<float>(-size));
  }
  return x;
}

Floats activated(size_t act, const Floats& x) {
  Floats y(x.size());
  active_kernels().variants->activate[act](x.data(), nullptr, static_cast<int64_t>(x.size()),
                                           y.data());
  return y;
}

// Largest |y - expected| in units of 2^-24 |x|: what rounding one plus erf or tanh costs.
template <class F>
double worst_error(const Floats& x, const Floats& y, F&& expected) {
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double size = std::max(1e-30, std::fabs(static_cast<double>(x[i])));
    const double error = std::fabs(static_cast<double>(y[i]) - expected(static_cast<double>(x[i])));
    worst = std::max(worst, error / size * 0x1p24);
  }
  return worst;
}

TEST_CASE("activation functions agree with double arithmetic") {
  const Floats x = sweep();
  const double gelu = worst_error(x, activated(kGelu, x), [](double v) {
    return 0.5 * v * (1 + std::erf(v * std::sqrt(0.5)));
  });
  const double gelu_tanh = worst_error(x, activated(kGeluTanh, x), [](double v) {
    return 0.5 * v * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (v + 0.044715 * v * v * v)));
  });
  const double silu =
      worst_error(x, activated(kSilu, x), [](double v) { return v / (1 + std::exp(-v)); });
  MESSAGE("worst errors in 2^-24 |x|: gelu ", gelu, ", gelu_tanh ", gelu_tanh, ", silu ", silu);
  CHECK(gelu <= 4);
  CHECK(gelu_tanh <= 8);
  CHECK(silu <= 4);
  const Floats relu = activated(kRelu, x);
  for (size_t i = 0; i < x.size(); ++i) CHECK(relu[i] == std::max(0.0f, x[i]));
}

TEST_CASE("softcap is near the identity for small values and never passes the cap") {
  const Floats x = sweep();
  Floats y = x;
  active_kernels().variants->softcap(y.data(), static_cast<int64_t>(y.size()), 5.0f);
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = 5 * std::tanh(static_cast<double>(x[i]) / 5);
    CHECK(std::fabs(static_cast<double>(y[i]) - expected) <=
          5 * 0x1p-24 * std::max(std::fabs(expected), 1e-30));
    CHECK(std::fabs(y[i]) <= 5.0f);
  }
  Floats huge = {1e30f, -1e30f};
  active_kernels().variants->softcap(huge.data(), 2, 5.0f);
  CHECK(huge == Floats{5.0f, -5.0f});
}

TEST_CASE("layernorm agrees with double arithmetic also far from zero, and pads with zeros") {
  for (const int64_t n : {1, 20, 33, 576}) {
    CAPTURE(n);
    Floats x = random_row(1, n, 2.0f);
    for (float& v : x) v += 100.0f;
    const Floats w = random_row(2, n, 1.0f);
    const Floats b = random_row(3, n, 1.0f);
    Floats y(static_cast<size_t>((n + 31) / 32 * 32 + 1), 99.0f);
    active_kernels().variants->layernorm(x.data(), w.data(), b.data(), 1e-5f, n, y.data());
    double mean = 0, squares = 0;
    for (const float v : x) mean += static_cast<double>(v) / static_cast<double>(n);
    for (const float v : x) squares += std::pow(static_cast<double>(v) - mean, 2);
    const double r = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = (static_cast<double>(x[i]) - mean) * r * static_cast<double>(w[i]) +
                              static_cast<double>(b[i]);
      CHECK(std::fabs(static_cast<double>(y[i]) - expected) < 1e-4);
    }
    for (size_t i = x.size(); i + 1 < y.size(); ++i) CHECK(y[i] == 0.0f);
    CHECK(y.back() == 99.0f);
  }
}

TEST_CASE("what is not a number stays one, so that the step can refuse it") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(isa_name(isa));
    const VariantKernels& kernels = *kernel_table(isa).variants;
    for (const auto activate : kernels.activate) {
      Floats x(20, 1.0f), y(20);
      x[18] = std::numeric_limits<float>::quiet_NaN();
      activate(x.data(), nullptr, 20, y.data());
      CHECK(std::isnan(y[18]));
      CHECK(std::isfinite(y[19]));
      kernels.softcap(x.data(), 20, 3.0f);
      CHECK(std::isnan(x[18]));
    }
  }
}

}  // namespace
}  // namespace edge
