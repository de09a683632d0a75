// The encoders: same bytes on every ISA and thread count, errors near what the formats can do, and
// a typed error for every input that cannot be encoded.
#include "kernels/encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/encode_kernels.h"
#include "kernels/kernels.h"
#include "quant/decode.h"

namespace edge {
namespace {

constexpr Format kTiled[] = {Format::kE2_16, Format::kE3_32, Format::kE4_16, Format::kE4_32,
                             Format::kE6_16, Format::kE8_32, Format::kK4_32, Format::kL4_32,
                             Format::kL8_32, Format::kF16};
constexpr Format kScaled[] = {Format::kE2_16, Format::kE3_32, Format::kE4_16,
                              Format::kE4_32, Format::kE6_16, Format::kE8_32};

struct Matrix {
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  std::vector<float> w;
};

Matrix random_matrix(int64_t n_rows, int64_t n_cols, uint32_t seed, float scale = 0.02f) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, scale);
  Matrix m{n_rows, n_cols, std::vector<float>(static_cast<size_t>(n_rows * n_cols))};
  for (float& w : m.w) w = normal(rng);
  return m;
}

std::vector<std::byte> encode(Format format, const Matrix& m, const float* importance = nullptr,
                              int n_threads = 1, Isa isa = supported_isas().front()) {
  const auto n_bytes =
      tensor_bytes(format, static_cast<uint64_t>(m.n_rows), static_cast<uint64_t>(m.n_cols));
  std::vector<std::byte> out(n_bytes.value(), std::byte{0xAA});
  const Status status = encode_tensor_with(*kernel_table(isa).encode, format, m.w.data(), m.n_rows,
                                           m.n_cols, importance, out, n_threads);
  REQUIRE(status.message() == "");
  return out;
}

Tensor view(Format format, const Matrix& m, const std::vector<std::byte>& bytes) {
  return {.format = format,
          .n_rows = m.n_rows,
          .n_cols = m.n_cols,
          .data = bytes.data(),
          .n_bytes = bytes.size()};
}

std::vector<float> decode(Format format, const Matrix& m, const std::vector<std::byte>& bytes) {
  std::vector<float> out(m.w.size());
  decode_rows(view(format, m, bytes), 0, m.n_rows, out.data());
  return out;
}

// sum h (w - decoded)^2 / sum h w^2, h = 1 if null.
double relative_mse(const Matrix& m, const std::vector<float>& decoded, const float* h = nullptr) {
  double error = 0;
  double energy = 0;
  for (size_t i = 0; i < m.w.size(); ++i) {
    const double weight = h ? static_cast<double>(h[i % static_cast<size_t>(m.n_cols)]) : 1.0;
    const double w = static_cast<double>(m.w[i]);
    const double rest = w - static_cast<double>(decoded[i]);
    error += weight * rest * rest;
    energy += weight * w * w;
  }
  return error / energy;
}

double max_relative_mse(Format format) {
  switch (format) {
    case Format::kE2_16:
      return 0.066;
    case Format::kE3_32:
      return 0.0205;
    case Format::kE4_16:
      return 0.0040;
    case Format::kE4_32:
      return 0.0055;
    case Format::kK4_32:
      return 0.0055;
    case Format::kL4_32:
      return 0.0061;
    case Format::kE6_16:
      return 3e-4;
    case Format::kE8_32:
    case Format::kL8_32:
      return 3e-5;
    default:
      return 1e-7;
  }
}

TEST_CASE("Gaussian weights are encoded near the best error of each format") {
  const Matrix m = random_matrix(128, 1024, 1);
  for (const Format format : kTiled) {
    const double error = relative_mse(m, decode(format, m, encode(format, m)));
    MESSAGE(format_name(format), ": relative MSE ", error);
    CHECK(error < max_relative_mse(format));
  }
}

TEST_CASE("every instruction set and thread count writes the same bytes") {
  std::mt19937 rng(3);
  for (const Format format : kTiled) {
    CAPTURE(format_name(format));
    Matrix m = random_matrix(37, 172, 5);
    for (int64_t k = 0; k < 172; ++k) m.w[static_cast<size_t>(3 * 172 + k)] = 0;  // a row of zeros
    for (int64_t k = 32; k < 64; ++k)
      m.w[static_cast<size_t>(5 * 172 + k)] = 0;  // a group of zeros
    for (int64_t k = 0; k < 172; ++k) m.w[static_cast<size_t>(6 * 172 + k)] *= 0x1p-140f;
    m.w[7 * 172] = 30.0f;  // an outlier
    std::vector<float> importance(172);
    for (float& h : importance) h = rng() % 5 == 0 ? 0.0f : static_cast<float>(rng() % 1000);
    const auto expected = encode(format, m, importance.data(), 1, Isa::kScalar);
    for (const Isa isa : supported_isas()) {
      CAPTURE(isa_name(isa));
      CHECK(encode(format, m, importance.data(), 1, isa) == expected);
    }
    CHECK(encode(format, m, importance.data(), 2) == expected);
  }
}

TEST_CASE("odd shapes keep the error bound and one row decodes as in the whole") {
  for (const Format format : kTiled) {
    for (const int64_t n_rows : {1, 17}) {
      for (const int64_t n_cols : {1, 8, 33, 172}) {
        CAPTURE(format_name(format));
        CAPTURE(n_rows);
        CAPTURE(n_cols);
        const Matrix m = random_matrix(n_rows, n_cols, static_cast<uint32_t>(n_cols));
        const auto bytes = encode(format, m);
        const auto whole = decode(format, m, bytes);
        // Short rows have no averaging, so single matrices may be worse than the mean.
        CHECK(relative_mse(m, whole) < 2.5 * max_relative_mse(format));
        std::vector<float> row(static_cast<size_t>(n_cols));
        for (int64_t i = 0; i < n_rows; ++i) {
          decode_rows(view(format, m, bytes), i, 1, row.data());
          CHECK(std::equal(row.begin(), row.end(), whole.begin() + i * n_cols));
        }
        Matrix alone{1, n_cols, {m.w.end() - n_cols, m.w.end()}};
        const auto last = decode(format, alone, encode(format, alone));
        CHECK(std::equal(last.begin(), last.end(), whole.end() - n_cols));
      }
    }
  }
}

TEST_CASE("padding rows have d_row 0 and padding columns the zero level") {
  const Matrix m = random_matrix(3, 40, 9);
  for (const Format format : kTiled) {
    CAPTURE(format_name(format));
    const auto bytes = encode(format, m);
    const Matrix padded{16, 64, std::vector<float>(16 * 64)};
    const auto all = decode(format, padded, bytes);
    for (size_t row = 0; row < 16; ++row) {
      float d_row;
      std::memcpy(&d_row, bytes.data() + 4 * row, sizeof d_row);
      CHECK((d_row != 0.0f) == (row < 3));
      for (size_t k = 40; k < 64; ++k) {
        // Not every LUT of E2, E3 and E4 has a level at 0; the nearest is a few steps of the scale.
        const bool is_linear =
            format == Format::kE6_16 || format == Format::kE8_32 || format == Format::kL8_32;
        CHECK(std::fabs(all[row * 64 + k]) <= (is_linear ? 0 : 6) * 127 * std::fabs(d_row));
      }
    }
  }
}

TEST_CASE("rows of zeros decode to zeros and F16 keeps halves exactly") {
  Matrix m = random_matrix(4, 64, 2);
  for (size_t k = 0; k < 64; ++k) m.w[64 + k] = k % 2 ? 0.0f : -0.0f;
  for (const Format format : kTiled) {
    const auto decoded = decode(format, m, encode(format, m));
    for (size_t k = 0; k < 64; ++k) CHECK(decoded[64 + k] == 0.0f);
  }
  for (size_t i = 0; i < m.w.size(); ++i) {
    m.w[i] = std::ldexp(static_cast<float>(i % 2048) - 1024.0f, static_cast<int>(i % 20) - 24);
  }
  CHECK(decode(Format::kF16, m, encode(Format::kF16, m)) == m.w);
}

TEST_CASE("a power of two times the weights is a power of two times the result") {
  const Matrix m = random_matrix(2, 96, 12);
  for (const float factor : {0x1p-80f, 0x1p80f}) {
    Matrix scaled = m;
    for (float& w : scaled.w) w *= factor;
    for (const Format format : kScaled) {
      auto expected = decode(format, m, encode(format, m));
      for (float& w : expected) w *= factor;
      CHECK(decode(format, scaled, encode(format, scaled)) == expected);
    }
  }
}

TEST_CASE("L4_32 gives weights on a grid of its own back, whatever the zero point") {
  for (int origin = 0; origin <= 15; ++origin) {
    Matrix m{16, 64, std::vector<float>(16 * 64)};
    for (size_t i = 0; i < m.w.size(); ++i) {
      const float scale = 0.0009765625f * static_cast<float>(1 + i / 32 % 7);  // exact in f16
      m.w[i] = scale * static_cast<float>(static_cast<int>(i * 7 % 16) - origin);
    }
    CAPTURE(origin);
    CHECK(decode(Format::kL4_32, m, encode(Format::kL4_32, m)) == m.w);
  }
}

TEST_CASE("importance lowers the error that it weighs") {
  const Matrix m = random_matrix(64, 256, 21);
  std::vector<float> importance(256, 1.0f);
  for (size_t k = 0; k < 256; k += 7) importance[k] = 200.0f;
  for (const Format format : kTiled) {
    if (format == Format::kF16 || format == Format::kL8_32) continue;  // nothing to choose
    CAPTURE(format_name(format));
    const auto plain = decode(format, m, encode(format, m));
    const auto weighted = decode(format, m, encode(format, m, importance.data()));
    CHECK(relative_mse(m, weighted, importance.data()) <
          0.9 * relative_mse(m, plain, importance.data()));
    const std::vector<float> constant(256, 42.0f);
    CHECK(decode(format, m, encode(format, m, constant.data())) == plain);
  }
}

struct Refusal {
  Code code;
  std::string message;
};
Refusal refused(Format format, const Matrix& m, size_t n_bytes, const float* importance = nullptr) {
  std::vector<std::byte> out(n_bytes);
  const Status status = encode_tensor(format, m.w.data(), m.n_rows, m.n_cols, importance, out, 2);
  return {status.code(), status.message()};
}

TEST_CASE("weights that cannot be encoded are refused with the first row and column") {
  for (const Format format : kTiled) {
    for (const float bad :
         {INFINITY, -INFINITY, std::numeric_limits<float>::quiet_NaN(), 0x1p100f}) {
      Matrix m = random_matrix(70, 40, 1);
      m.w[69 * 40 + 1] = bad;
      m.w[50 * 40 + 39] = bad;
      m.w[50 * 40 + 17] = bad;
      const Refusal r = refused(format, m, *tensor_bytes(format, 70, 40));
      CHECK(r.code == Code::kNumeric);
      CHECK(r.message.find("row 50, column 17") != std::string::npos);
    }
  }
  Matrix m = random_matrix(1, 32, 1);
  m.w[3] = 65520.0f;  // rounds to infinity in f16 only
  CHECK(refused(Format::kF16, m, *tensor_bytes(Format::kF16, 1, 32)).code == Code::kNumeric);
  CHECK(refused(Format::kE4_16, m, *tensor_bytes(Format::kE4_16, 1, 32)).code == Code::kOk);
  CHECK(refused(Format::kK4_32, m, *tensor_bytes(Format::kK4_32, 1, 32)).code == Code::kOk);
  CHECK(refused(Format::kL4_32, m, *tensor_bytes(Format::kL4_32, 1, 32)).code == Code::kOk);
  CHECK(refused(Format::kL8_32, m, *tensor_bytes(Format::kL8_32, 1, 32)).code == Code::kOk);
  m.w[3] = 65519.0f;
  CHECK(refused(Format::kF16, m, *tensor_bytes(Format::kF16, 1, 32)).code == Code::kOk);
}

TEST_CASE("wrong sizes, formats and importance are refused by name") {
  const Matrix m = random_matrix(2, 32, 1);
  const size_t right = *tensor_bytes(Format::kE4_16, 2, 32);
  CHECK(refused(Format::kE4_16, m, right - 1).code == Code::kInvalidArgument);
  CHECK(refused(Format::kE4_16, m, right + 1).code == Code::kInvalidArgument);
  CHECK(refused(Format::kF32, m, 256).code == Code::kInvalidArgument);
  CHECK(refused(Format::kE4_16, Matrix{0, 32, {}}, 0).code == Code::kInvalidArgument);
  CHECK(refused(Format::kE4_16, Matrix{-1, 32, {}}, 0).code == Code::kInvalidArgument);
  CHECK(refused(Format::kE4_16, Matrix{INT64_MAX, INT64_MAX, {}}, 0).code ==
        Code::kInvalidArgument);
  for (const float bad : {-1.0f, INFINITY, std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> importance(32, 1.0f);
    importance[9] = bad;
    const Refusal r = refused(Format::kE4_16, m, right, importance.data());
    CHECK(r.code == Code::kInvalidArgument);
    CHECK(r.message.find("column 9") != std::string::npos);
  }
}

}  // namespace
}  // namespace edge
