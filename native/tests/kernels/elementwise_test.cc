// The element-wise kernels: every ISA equals scalar bit for bit, and scalar equals double
// arithmetic within stated bounds.
#include "kernels/elementwise.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "base/exact_math.h"
#include "base/half.h"
#include "base/sha256.h"
#include "doctest/doctest.h"
#include "kernels/kernels.h"

namespace edge {
namespace {

using Floats = std::vector<float>;

Floats random_row(std::mt19937& rng, int64_t n, float scale) {
  std::normal_distribution<float> normal(0, scale);
  Floats row(static_cast<size_t>(n));
  for (float& x : row) x = rng() % 16 == 0 ? normal(rng) * 0x1p-130f : normal(rng);
  return row;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Distance of a float from a double in units of the last place of the float nearest to the double;
// the double itself may be off by `doubt`.
double ulps(float actual, double expected, double doubt = 0) {
  const float nearest = std::fabs(static_cast<float>(expected));
  const double ulp = nearest < FLT_MIN ? static_cast<double>(FLT_TRUE_MIN)
                                       : std::ldexp(1.0, std::ilogb(nearest) - 23);
  return std::max(0.0, std::fabs(static_cast<double>(actual) - expected) - doubt) / ulp;
}

// What all kernels of one ISA make of rows of n random values.
struct Results {
  std::vector<float> floats;
  std::vector<int32_t> ints;
};

Results run_all(const ElementwiseKernels& kernels, int64_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  const Floats x = random_row(rng, n, 3.0f);
  const Floats w = random_row(rng, n, 1.0f);
  const int64_t n_padded = (n + 31) / 32 * 32;
  Results r;

  Floats normed(static_cast<size_t>(n_padded), 99.0f);
  kernels.rmsnorm(x.data(), w.data(), 1e-5f, n, normed.data());
  r.floats = normed;
  std::vector<int8_t> q(static_cast<size_t>(n_padded));
  Floats d(static_cast<size_t>(n_padded / 32));
  std::vector<int32_t> bias(static_cast<size_t>(n_padded / 16));
  REQUIRE(kernels.quantize_row(normed.data(), n_padded, 1, q.data(), d.data(), bias.data()));
  r.ints.assign(q.begin(), q.end());
  r.ints.insert(r.ints.end(), bias.begin(), bias.end());
  r.floats.insert(r.floats.end(), d.begin(), d.end());
  q.assign(2 * q.size(), 0);
  d.assign(2 * d.size(), 0);
  bias.assign(2 * bias.size(), 0);
  REQUIRE(kernels.quantize_row_x2(normed.data(), n_padded, 2, q.data(), d.data(), bias.data()));
  r.ints.insert(r.ints.end(), q.begin(), q.end());
  r.ints.insert(r.ints.end(), bias.begin(), bias.end());
  r.floats.insert(r.floats.end(), d.begin(), d.end());

  Floats y(static_cast<size_t>(n + 1), 7.0f);
  kernels.swiglu(x.data(), w.data(), n, y.data());
  r.floats.insert(r.floats.end(), y.begin(), y.end());
  kernels.add(w.data(), y.data(), n);
  r.floats.insert(r.floats.end(), y.begin(), y.end());
  const Floats taps = random_row(rng, 4 * n, 1.0f);
  const float* const rows[] = {x.data(), y.data(), w.data(), x.data()};
  Floats gated(static_cast<size_t>(n + 1), 5.0f);
  kernels.gated_taps(w.data(), taps.data(), rows, 4, n, gated.data());
  r.floats.insert(r.floats.end(), gated.begin(), gated.end());

  Floats angles_cos(static_cast<size_t>(n)), angles_sin(static_cast<size_t>(n));
  kernels.rope_angles(w.data(), static_cast<int>(n), 12345, 1.25f, angles_cos.data(),
                      angles_sin.data());
  Floats head = random_row(rng, 2 * n, 1.0f);
  kernels.rope_row(head.data(), angles_cos.data(), angles_sin.data(), static_cast<int>(2 * n));
  r.floats.insert(r.floats.end(), head.begin(), head.end());

  std::vector<uint16_t> halves;
  for (int64_t i = 0; i < n; ++i) halves.push_back(float_to_half(x[static_cast<size_t>(i)]));
  kernels.load_f16_row(halves.data(), n, y.data());
  r.floats.insert(r.floats.end(), y.begin(), y.end());
  return r;
}

TEST_CASE("every instruction set equals scalar in every element-wise kernel and row length") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(isa_name(isa));
    for (const int64_t n : {1, 7, 15, 16, 17, 32, 33, 63, 64, 100, 576, 2048}) {
      CAPTURE(n);
      const Results expected = run_all(kElementwise_scalar, n, static_cast<uint32_t>(n));
      const Results actual = run_all(*kernel_table(isa).elementwise, n, static_cast<uint32_t>(n));
      CHECK(same_bits(actual.floats, expected.floats));
      CHECK(same_bits(actual.ints, expected.ints));
    }
  }
}

struct NormQuantResults {
  Floats x, d;
  std::vector<int8_t> q;
  std::vector<int32_t> bias;
};

// Row 1 of a panel of 2; what belongs to row 0 must stay as it was.
NormQuantResults norm_quantized(const ElementwiseKernels& kernels, const float* delta, Floats x,
                                const Floats& weight, bool in_one_pass) {
  const auto n = static_cast<int64_t>(x.size());
  const int64_t n_padded = (n + 31) / 32 * 32;
  const auto n_blocks = static_cast<size_t>(n_padded / 32);
  NormQuantResults r{std::move(x), Floats(2 * n_blocks, 7.0f),
                     std::vector<int8_t>(64 * n_blocks, 7), std::vector<int32_t>(4 * n_blocks, 7)};
  int8_t* const q = r.q.data() + 32;
  float* const d = r.d.data() + 1;
  int32_t* const bias = r.bias.data() + 2;
  if (in_one_pass) {
    REQUIRE(
        kernels.add_norm_quantize_row(delta, r.x.data(), weight.data(), 1e-5f, n, 2, q, d, bias));
    return r;
  }
  Floats normed(static_cast<size_t>(n_padded));
  if (delta != nullptr) kernels.add(delta, r.x.data(), n);
  kernels.rmsnorm(r.x.data(), weight.data(), 1e-5f, n, normed.data());
  REQUIRE(kernels.quantize_row(normed.data(), n_padded, 2, q, d, bias));
  return r;
}

TEST_CASE("residual, norm and quantization in one pass have the bits of one after the other") {
  std::mt19937 rng(3);
  for (const int64_t n : {1, 15, 16, 17, 31, 32, 33, 48, 100, 576, 2048}) {
    CAPTURE(n);
    const Floats x = random_row(rng, n, 3.0f);
    const Floats weight = random_row(rng, n, 1.0f);
    const Floats delta = random_row(rng, n, 1.0f);
    for (const float* more : {static_cast<const float*>(nullptr), delta.data()}) {
      const NormQuantResults expected = norm_quantized(kElementwise_scalar, more, x, weight, false);
      if (more == nullptr) CHECK(same_bits(expected.x, x));
      for (const Isa isa : supported_isas()) {
        CAPTURE(isa_name(isa));
        const NormQuantResults actual =
            norm_quantized(*kernel_table(isa).elementwise, more, x, weight, true);
        CHECK(same_bits(actual.x, expected.x));
        CHECK(same_bits(actual.q, expected.q));
        CHECK(same_bits(actual.d, expected.d));
        CHECK(same_bits(actual.bias, expected.bias));
      }
    }
  }
}

TEST_CASE("the one pass refuses what is not finite, wherever it comes from") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(isa_name(isa));
    const ElementwiseKernels& kernels = *kernel_table(isa).elementwise;
    std::vector<int8_t> q(64);
    Floats d(2);
    std::vector<int32_t> bias(4);
    const auto is_accepted = [&](float in_x, float in_delta, float in_weight) {
      Floats x(40, 1.0f), delta(40, 1.0f), weight(40, 1.0f);
      x[39] = in_x;
      delta[39] = in_delta;
      weight[39] = in_weight;
      return kernels.add_norm_quantize_row(delta.data(), x.data(), weight.data(), 1e-5f, 40, 1,
                                           q.data(), d.data(), bias.data());
    };
    CHECK(is_accepted(1, 1, 1));
    CHECK_FALSE(is_accepted(INFINITY, 1, 1));
    CHECK_FALSE(is_accepted(1, std::numeric_limits<float>::quiet_NaN(), 1));
    CHECK_FALSE(is_accepted(1, 1, INFINITY));
  }
}

TEST_CASE("rmsnorm agrees with double arithmetic and pads with zeros") {
  std::mt19937 rng(1);
  for (const int64_t n : {1, 20, 33, 576}) {
    const Floats x = random_row(rng, n, 2.0f);
    const Floats w = random_row(rng, n, 1.0f);
    const int64_t n_padded = (n + 31) / 32 * 32;
    Floats y(static_cast<size_t>(n_padded + 1), 99.0f);
    kElementwise_scalar.rmsnorm(x.data(), w.data(), 1e-5f, n, y.data());
    double squares = 0;
    for (const float v : x) squares += static_cast<double>(v) * static_cast<double>(v);
    const double r = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = static_cast<double>(x[i]) * r * static_cast<double>(w[i]);
      CHECK(static_cast<double>(y[i]) == doctest::Approx(expected).epsilon(1e-6));
    }
    for (size_t i = x.size(); i < static_cast<size_t>(n_padded); ++i) CHECK(y[i] == 0.0f);
    CHECK(y.back() == 99.0f);
  }
}

TEST_CASE("quantize_row is within half a step, uses all of -127..127 and sums its bias") {
  std::mt19937 rng(2);
  const Floats x = random_row(rng, 96, 5.0f);
  std::vector<int8_t> q(96);
  Floats d(3);
  std::vector<int32_t> bias(6);
  REQUIRE(kElementwise_scalar.quantize_row(x.data(), 96, 1, q.data(), d.data(), bias.data()));
  for (size_t block = 0; block < 3; ++block) {
    float amax = 0;
    int largest = 0;
    for (size_t i = 32 * block; i < 32 * block + 32; ++i) {
      amax = std::max(amax, std::fabs(x[i]));
      largest = std::max(largest, std::abs(static_cast<int>(q[i])));
      CHECK(std::fabs(x[i] - d[block] * static_cast<float>(q[i])) <= d[block] * 0.5001f);
    }
    CHECK(d[block] == amax / 127.0f);
    CHECK(largest == 127);
  }
  for (size_t g = 0; g < 6; ++g) {
    int sum = 0;
    for (size_t i = 16 * g; i < 16 * g + 16; ++i) sum += q[i];
    CHECK(bias[g] == -64 * sum);
  }
}

TEST_CASE("quantize_row_x2 is the row of quantize_row and its residual, 254 times finer") {
  std::mt19937 rng(3);
  Floats x = random_row(rng, 96, 5.0f);
  x[40] = 3e4f;                                              // an outlier
  for (size_t i = 64; i < 96; ++i) x[i] = x[i] * 0x1p-110f;  // below the smallest scale
  std::vector<int8_t> q1(96), q(192);
  Floats d1(3), d(6);
  std::vector<int32_t> bias1(6), bias(12);
  REQUIRE(kElementwise_scalar.quantize_row(x.data(), 96, 1, q1.data(), d1.data(), bias1.data()));
  REQUIRE(kElementwise_scalar.quantize_row_x2(x.data(), 96, 2, q.data(), d.data(), bias.data()));
  for (size_t block = 0; block < 3; ++block) {
    CHECK(d[2 * block] == d1[block]);
    CHECK(d[2 * block + 1] == d1[block] / 254.0f);
    for (size_t g = 0; g < 2; ++g) {
      CHECK(bias[4 * block + g] == bias1[2 * block + g]);
      int sum = 0;
      for (size_t i = 0; i < 16; ++i) sum += q[64 * block + 32 + 16 * g + i];
      CHECK(bias[4 * block + 2 + g] == -64 * sum);
    }
    for (size_t i = 0; i < 32; ++i) {
      CHECK(q[64 * block + i] == q1[32 * block + i]);
      const double back = static_cast<double>(d[2 * block]) * q[64 * block + i] +
                          static_cast<double>(d[2 * block + 1]) * q[64 * block + 32 + i];
      const double error = std::fabs(static_cast<double>(x[32 * block + i]) - back);
      if (block < 2) CHECK(error <= static_cast<double>(d[2 * block]) / 508 * 1.001);
      if (block == 2) CHECK(q[64 * block + 32 + i] == 0);
    }
  }
}

TEST_CASE("quantize_row makes tiny blocks zero and refuses what is not finite") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(isa_name(isa));
    const ElementwiseKernels& kernels = *kernel_table(isa).elementwise;
    Floats x(64, 0x1p-101f);
    x[40] = 0x1p-100f;
    std::vector<int8_t> q(64, 5);
    Floats d(2, 5.0f);
    std::vector<int32_t> bias(4, 5);
    REQUIRE(kernels.quantize_row(x.data(), 64, 1, q.data(), d.data(), bias.data()));
    CHECK(d[0] == 0.0f);
    CHECK(q[0] == 0);
    CHECK(bias[0] == 0);
    CHECK(d[1] == 0x1p-100f / 127.0f);
    CHECK(q[40] == 127);
    for (const float bad : {INFINITY, -INFINITY, std::numeric_limits<float>::quiet_NaN()}) {
      x[63] = bad;
      CHECK_FALSE(kernels.quantize_row(x.data(), 64, 1, q.data(), d.data(), bias.data()));
      CHECK_FALSE(kernels.quantize_row_x2(x.data() + 32, 32, 2, q.data(), d.data(), bias.data()));
      CHECK_FALSE(kernels.is_finite_row(x.data(), 64));
      CHECK(kernels.is_finite_row(x.data(), 63));
    }
    x[63] = FLT_MAX;
    CHECK(kernels.quantize_row(x.data(), 64, 1, q.data(), d.data(), bias.data()));
    CHECK(q[63] == 127);
  }
}

TEST_CASE("max_row finds the largest, and argmax_row the first of the largest") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(isa_name(isa));
    const ElementwiseKernels& kernels = *kernel_table(isa).elementwise;
    for (const int64_t n : {1, 5, 16, 17, 33, 100}) {
      for (int64_t at = 0; at < n; ++at) {
        Floats x(static_cast<size_t>(n), -2.0f);
        for (int64_t i = at; i < n; i += 3) x[static_cast<size_t>(i)] = i % 2 == 0 ? 0.0f : -0.0f;
        CHECK(kernels.argmax_row(x.data(), n) == at);
        CHECK(kernels.max_row(x.data(), n) == 0.0f);
        x[static_cast<size_t>(at)] = 3.0f;
        CHECK(kernels.max_row(x.data(), n) == 3.0f);
      }
    }
  }
}

TEST_CASE("exp_sum gives the sum and the terms of double arithmetic, the same on every level") {
  for (const int64_t n : {1, 16, 31, 1000}) {
    Floats x(static_cast<size_t>(n));
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      x[static_cast<size_t>(i)] = static_cast<float>(-(i * i % 997)) * 0.37f;
      sum += std::exp(1.25 * (static_cast<double>(x[static_cast<size_t>(i)]) - 0.5));
    }
    const double scalar =
        kernel_table(Isa::kScalar).elementwise->exp_sum(x.data(), n, 0.5, 1.25, nullptr);
    CHECK(scalar == doctest::Approx(sum).epsilon(1e-12));
    for (const Isa isa : supported_isas()) {
      CAPTURE(isa_name(isa));
      const ElementwiseKernels& kernels = *kernel_table(isa).elementwise;
      std::vector<double> terms(x.size());
      CHECK(kernels.exp_sum(x.data(), n, 0.5, 1.25, terms.data()) == scalar);
      for (size_t i = 0; i < x.size(); ++i) {
        CHECK(terms[i] == exp_nonpositive((static_cast<double>(x[i]) - 0.5) * 1.25));
      }
    }
  }
}

TEST_CASE("gated taps are a sum by fma over the rows in their order, times the gate") {
  std::mt19937 rng(8);
  constexpr size_t n = 37, n_taps = 3;
  const Floats gate = random_row(rng, n, 1.0f), taps = random_row(rng, n_taps * n, 1.0f);
  std::vector<Floats> rows;
  for (size_t t = 0; t < n_taps; ++t) rows.push_back(random_row(rng, n, 2.0f));
  const float* const at[] = {rows[0].data(), rows[1].data(), rows[2].data()};
  Floats wanted(n);
  for (size_t i = 0; i < n; ++i) {
    float sum = 0;
    for (size_t t = 0; t < n_taps; ++t) sum = std::fma(taps[t * n + i], rows[t][i], sum);
    wanted[i] = gate[i] * sum;
  }
  Floats y = gate;  // in place
  active_kernels().elementwise->gated_taps(y.data(), taps.data(), at, n_taps, n, y.data());
  CHECK(same_bits(y, wanted));
}

// swiglu with up = 1 is silu; exp is reached through it at -x.
float silu_of(float x) {
  const float one = 1.0f;
  float y;
  active_kernels().elementwise->swiglu(&x, &one, 1, &y);
  return y;
}

TEST_CASE("silu is within 3 ulp of double arithmetic while exp(-x) is finite") {
  Floats x, up, y;
  for (uint32_t bits = 0; bits < 0x7f800000u; bits += 4093) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    if (value > 1e30f) break;
    x.push_back(value);
    if (value < 88.7f) x.push_back(-value);
  }
  up.assign(x.size(), 1.0f);
  y.resize(x.size());
  active_kernels().elementwise->swiglu(x.data(), up.data(), static_cast<int64_t>(x.size()),
                                       y.data());
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double value = static_cast<double>(x[i]);
    worst = std::max(worst, ulps(y[i], value / (1 + std::exp(-value))));
  }
  MESSAGE("silu: worst error in ulp: ", worst);
  CHECK(worst <= 3.0);
  CHECK(silu_of(0.0f) == 0.0f);
  CHECK(silu_of(-1e30f) == 0.0f);
  CHECK(silu_of(1e30f) == 1e30f);
}

// mingw-w64's cos and sin are the x87's, whose pi of 66 bits is this much too small for its size.
#if defined(__MINGW32__)
constexpr double kOracleError = 0x1p-69;
#else
constexpr double kOracleError = 0;
#endif

TEST_CASE("rope_angles is within 1 ulp of double cos and sin for positions up to 2^31") {
  std::mt19937 rng(4);
  double worst = 0;
  for (int i = 0; i < 400000; ++i) {
    const int32_t position = static_cast<int32_t>(rng() >> (1 + rng() % 31));
    const float inv_freq =
        i % 3 == 0 ? 1.0f : std::exp2(-20.0f * static_cast<float>(rng() % 1000) / 1000.0f);
    float cos, sin;
    kElementwise_scalar.rope_angles(&inv_freq, 1, position, 1.0f, &cos, &sin);
    const double angle = static_cast<double>(static_cast<float>(position) * inv_freq);
    worst = std::max({worst, ulps(cos, std::cos(angle), angle * kOracleError),
                      ulps(sin, std::sin(angle), angle * kOracleError)});
  }
  MESSAGE("cos and sin: worst error in ulp: ", worst);
  CHECK(worst <= 1.0);
}

TEST_CASE("rope_angles has the same bits on every machine, whatever its libm") {
  std::mt19937 rng(5);
  std::vector<float> values;
  for (int i = 0; i < 100000; ++i) {
    const int32_t position = static_cast<int32_t>(rng() >> (1 + rng() % 31));
    const float inv_freq = static_cast<float>(1 + rng() % 0xffffu) * 0x1p-16f;
    float cos, sin;
    kElementwise_scalar.rope_angles(&inv_freq, 1, position, 1.0f, &cos, &sin);
    values.push_back(cos);
    values.push_back(sin);
  }
  CHECK(to_hex(sha256(std::as_bytes(std::span(values)))) ==
        "0de8cdeac0ca33cec6f437a50f88d67011c5598e9ab9dce11ca302eca8a2938f");
}

TEST_CASE("rope_row rotates pairs of the two halves and leaves the rest of the head alone") {
  const int n_rope = 20;
  Floats cos(10), sin(10), head(24, 0.25f);
  for (size_t i = 0; i < 10; ++i) {
    cos[i] = 0.0f;  // a quarter turn: (x1, x2) -> (-x2, x1)
    sin[i] = 1.0f;
    head[i] = static_cast<float>(i + 1);
    head[10 + i] = static_cast<float>(100 + i);
  }
  kElementwise_scalar.rope_row(head.data(), cos.data(), sin.data(), n_rope);
  for (size_t i = 0; i < 10; ++i) {
    CHECK(head[i] == -static_cast<float>(100 + i));
    CHECK(head[10 + i] == static_cast<float>(i + 1));
  }
  for (size_t i = 20; i < 24; ++i) CHECK(head[i] == 0.25f);
}

}  // namespace
}  // namespace edge
