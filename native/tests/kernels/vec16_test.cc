// Every ISA's vec16.h equals the scalar one bit for bit, and the scalar one equals IEEE arithmetic.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/fma.h"
#include "base/half.h"
#include "doctest/doctest.h"
#include "kernels/kernels.h"
#include "probes/vec16_probe.h"

namespace edge {
namespace {

uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

class Random {  // mt19937 yields a wider type than its 32 bits
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t operator()() { return static_cast<uint32_t>(engine_()); }

 private:
  std::mt19937 engine_;
};

struct Probe {
  Isa isa;
  ProbeFn fn;
};
constexpr Probe kProbes[] = {
#if defined(__x86_64__) || defined(_M_X64)
    {Isa::kSse41, probe_x86_sse41},
    {Isa::kAvx2, probe_x86_avx2},
    {Isa::kAvx512Bw, probe_x86_avx512bw},
#elif defined(__aarch64__) || defined(_M_ARM64)
    {Isa::kNeon, probe_arm_neon},
#endif
    {Isa::kScalar, probe_scalar},
};

bool runs_here(Isa isa) {
  for (const Isa supported : supported_isas()) {
    if (supported == isa) return true;
  }
  MESSAGE("skipped, this CPU lacks it: ", isa_name(isa));
  return false;
}

// Any finite f32 with all exponents equally likely, or, one time in eight, a hard value.
uint32_t random_finite(Random& rng) {
  static constexpr float kHard[] = {
      0.0f,       -0.0f,     1.0f,         -1.0f,   0.5f,     1.5f,      2.5f,     FLT_MAX,
      -FLT_MAX,   FLT_MIN,   FLT_TRUE_MIN, 65504.f, 65520.f,  65519.99f, 0x1p-24f, 0x1p-25f,
      0x1.8p-25f, 8388608.f, 8388607.5f,   0x1p31f, -0x1p31f, 88.8f,     -104.0f,  0x1p-14f};
  if (rng() % 8 == 0) return bits_of(kHard[rng() % std::size(kHard)]);
  uint32_t bits = rng();
  if (rng() % 2 == 0) bits = (bits & 0x80ffffffu) | (120u + rng() % 16u) << 23;  // near 1
  return (bits & 0x7f800000u) == 0x7f800000u ? bits & 0xbfffffffu : bits;
}

ProbeInput random_input(Random& rng) {
  ProbeInput in;
  for (int l = 0; l < 16; ++l) {
    in.a[l] = random_finite(rng);
    in.b[l] = rng() % 4 == 0 ? in.a[l] ^ rng() % 4u : random_finite(rng);
    // Cancellation: c near -(a * b).
    const float product = -(float_of(in.a[l]) * float_of(in.b[l]));
    const bool near = rng() % 2 == 0 && std::isfinite(product);
    in.c[l] = near ? bits_of(product) ^ rng() % 4u : random_finite(rng);
    in.bytes[l] = static_cast<uint8_t>(rng());
    in.halves[l] = static_cast<uint16_t>(rng());
    if ((in.halves[l] & 0x7c00) == 0x7c00) in.halves[l] &= 0xfc00;  // infinity, not NaN
  }
  if (rng() % 16 == 0) in.a[rng() % 16] = rng() % 2 ? 0x7f800000u : 0xff800000u;
  in.n = static_cast<int>(rng() % 17);
  return in;
}

TEST_CASE("every instruction set equals scalar bit for bit in every operation") {
  for (const Probe& probe : kProbes) {
    if (!runs_here(probe.isa)) continue;
    CAPTURE(isa_name(probe.isa));
    Random rng(7);
    static ProbeOutput expected, actual;
    for (int i = 0; i < 40000; ++i) {
      const ProbeInput in = random_input(rng);
      probe_scalar(in, expected);
      probe.fn(in, actual);
      REQUIRE(actual.n_rows == expected.n_rows);
      if (std::memcmp(expected.row, actual.row, sizeof expected.row) == 0) continue;
      for (int row = 0; row < expected.n_rows; ++row) {
        for (int l = 0; l < 16; ++l) {
          CAPTURE(expected.name[row]);
          CAPTURE(in.a[l]);
          CAPTURE(in.b[l]);
          CAPTURE(in.c[l]);
          REQUIRE(actual.row[row][l] == expected.row[row][l]);
        }
      }
    }
  }
}

// Row `name` of what scalar makes of an input with `a` in lane 0 and `b` elsewhere zero.
const uint32_t* scalar_row(const ProbeInput& in, const std::string& name) {
  static ProbeOutput out;
  probe_scalar(in, out);
  for (int row = 0; row < out.n_rows; ++row) {
    if (name == out.name[row]) return out.row[row];
  }
  return nullptr;
}

TEST_CASE("scalar rounding agrees with the C library") {
  Random rng(11);
  for (int i = 0; i < 20000; ++i) {
    const ProbeInput in = random_input(rng);
    const uint32_t* floors = scalar_row(in, "floor(a)");
    REQUIRE(floors != nullptr);
    for (int l = 0; l < 16; ++l) REQUIRE(floors[l] == bits_of(std::floor(float_of(in.a[l]))));
    const uint32_t* rounds = scalar_row(in, "round_even(a)");
    for (int l = 0; l < 16; ++l) REQUIRE(rounds[l] == bits_of(std::nearbyint(float_of(in.a[l]))));
    const uint32_t* ints = scalar_row(in, "to_int(as_f(a))");
    for (int l = 0; l < 16; ++l) {
      const double x = std::nearbyint(static_cast<double>(float_of(in.a[l])));
      const bool fits = x >= -2147483648.0 && x <= 2147483647.0;
      REQUIRE(static_cast<int32_t>(ints[l]) == (fits ? static_cast<int32_t>(x) : INT32_MIN));
    }
  }
}

TEST_CASE("the sum of 16 lanes follows the fixed tree") {
  ProbeInput in = {};
  const float values[16] = {1e8f,  1,  -1e8f, 3,  5e7f, 7,  11, 13,
                            -1e8f, 17, 1e8f,  19, 23,   29, 31, 37};
  float lanes[16];
  std::memcpy(lanes, values, sizeof lanes);
  std::memcpy(in.a, values, sizeof in.a);
  for (int half = 8; half >= 1; half /= 2) {
    for (int l = 0; l < half; ++l) lanes[l] = lanes[l] + lanes[l + half];
  }
  CHECK(float_of(scalar_row(in, "set1(reduce_add(a))")[0]) == lanes[0]);
}

TEST_CASE("exp is within 2 ulp of double arithmetic, exact at 0 and clean at its ends") {
  double worst = 0;
  ProbeInput in = {};
  for (uint32_t bits = 0; bits < bits_of(104.0f); bits += 16 * 1021) {
    for (uint32_t l = 0; l < 16; ++l) in.a[l] = (bits + l * 1021) | (l & 1) << 31;
    const uint32_t* values = scalar_row(in, "exp(a)");
    REQUIRE(values != nullptr);
    for (int l = 0; l < 16; ++l) {
      const double expected = std::exp(static_cast<double>(float_of(in.a[l])));
      if (expected > static_cast<double>(FLT_MAX)) {
        REQUIRE(float_of(values[l]) == INFINITY);
        continue;
      }
      const double ulp = std::ldexp(1.0, std::max(std::ilogb(expected), -126) - 23);
      worst = std::max(worst, std::fabs(static_cast<double>(float_of(values[l])) - expected) / ulp);
    }
  }
  MESSAGE("exp: worst error in ulp: ", worst);
  CHECK(worst <= 2.0);
  const float ends[16] = {0.0f, -0.0f, INFINITY, -INFINITY, 88.72284f, -104.0f, FLT_MAX, -FLT_MAX};
  std::memcpy(in.a, ends, sizeof in.a);
  const float expected[8] = {1, 1, INFINITY, 0, INFINITY, 0, INFINITY, 0};
  const uint32_t* values = scalar_row(in, "exp(a)");
  for (int l = 0; l < 8; ++l) CHECK(float_of(values[l]) == expected[l]);
}

// glibc's fmaf is correctly rounded, in hardware or in software. mingw-w64's rounds twice: there
// the instruction is the oracle, and a processor without it has none.
#if defined(__MINGW32__)
bool has_fma_oracle() { return __builtin_cpu_supports("fma") != 0; }
__attribute__((target("fma"))) float fma_oracle(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
#else
bool has_fma_oracle() { return true; }
float fma_oracle(float a, float b, float c) { return std::fma(a, b, c); }
#endif

void check_fma(float a, float b, float c) {
  CAPTURE(bits_of(a));
  CAPTURE(bits_of(b));
  CAPTURE(bits_of(c));
  REQUIRE(bits_of(fma_by_double(a, b, c)) == bits_of(fma_oracle(a, b, c)));
}

TEST_CASE("fma by double rounds once: random values, cancellation, subnormals and overflow") {
  if (!has_fma_oracle()) {
    MESSAGE("skipped, this CPU lacks fma and this system's library rounds twice");
    return;
  }
  Random rng(3);
  for (int i = 0; i < 3000000; ++i) {
    const float a = float_of(random_finite(rng));
    const float b = float_of(random_finite(rng));
    const float product = a * b;
    const bool near = i % 2 == 0 && std::isfinite(product);
    check_fma(a, b, near ? float_of(bits_of(-product) ^ rng() % 8u) : float_of(random_finite(rng)));
  }
}

TEST_CASE("fma by double rounds once when the double sum sits next to a midpoint of two floats") {
  if (!has_fma_oracle()) {
    MESSAGE("skipped, this CPU lacks fma and this system's library rounds twice");
    return;
  }
  Random rng(5);
  for (int i = 0; i < 500000; ++i) {
    // a * b = 2^-24 (1 +- tiny) of the ulp of c: half an ulp and a little more or less.
    const int exponent = static_cast<int>(rng() % 250) - 125;
    const float c = std::ldexp(1.0f + static_cast<float>(rng() % 0x800000u) * 0x1p-23f, exponent);
    const int split = static_cast<int>(rng() % 40) - 20;
    const float a = std::ldexp(1.0f + static_cast<float>(rng() % 5u) * 0x1p-23f, split);
    const float b =
        std::ldexp(1.0f - static_cast<float>(rng() % 5u) * 0x1p-24f, exponent - 24 - split);
    check_fma(a, b, c);
    check_fma(-a, b, c);
    check_fma(a, b, -c);
  }
  // Subnormal results: the midpoint is above bit 29 of the double.
  for (int i = 0; i < 500000; ++i) {
    const float c = float_of(rng() & 0x807fffffu);
    const float a = std::ldexp(1.0f + static_cast<float>(rng() % 9u) * 0x1p-23f, -75);
    const float b = std::ldexp(1.0f - static_cast<float>(rng() % 9u) * 0x1p-24f, -75);
    check_fma(a, b, c);
    check_fma(-a, b, c);
  }
}

TEST_CASE("every half survives the way to float and back") {
  for (uint32_t half = 0; half < 65536; ++half) {
    if ((half & 0x7fff) > 0x7c00) {
      CHECK(std::isnan(half_to_float(static_cast<uint16_t>(half))));
      CHECK((float_to_half(half_to_float(static_cast<uint16_t>(half))) & 0x7fff) > 0x7c00);
      continue;
    }
    const int exponent = static_cast<int>(half >> 10 & 31);
    const float mantissa = static_cast<float>(half & 1023);
    float expected =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024.0f + mantissa, exponent - 25);
    if (exponent == 31) expected = INFINITY;
    if (half & 0x8000) expected = -expected;
    REQUIRE(bits_of(half_to_float(static_cast<uint16_t>(half))) == bits_of(expected));
    REQUIRE(float_to_half(expected) == half);
  }
}

TEST_CASE("float to half rounds to the nearest even half") {
  for (uint32_t half = 0; half < 0x7bff; ++half) {
    const float low = half_to_float(static_cast<uint16_t>(half));
    const float high = half_to_float(static_cast<uint16_t>(half + 1));
    const float middle = low + (high - low) / 2;  // exact
    const uint32_t even = (half & 1) ? half + 1 : half;
    REQUIRE(float_to_half(middle) == even);
    REQUIRE(float_to_half(std::nextafter(middle, 0.0f)) == half);
    REQUIRE(float_to_half(std::nextafter(middle, 1e9f)) == half + 1);
    REQUIRE(float_to_half(-middle) == (even | 0x8000));
  }
  CHECK(float_to_half(65519.996f) == 0x7bff);
  CHECK(float_to_half(65520.0f) == 0x7c00);
  CHECK(float_to_half(FLT_MAX) == 0x7c00);
  CHECK(float_to_half(-INFINITY) == 0xfc00);
  CHECK(float_to_half(FLT_TRUE_MIN) == 0);
}

}  // namespace
}  // namespace edge
