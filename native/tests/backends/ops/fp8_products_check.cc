#include "fp8_products_check.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "backends/cpu/cpu_backend.h"
#include "doctest/doctest.h"
#include "kernels/kernels.h"
#include "ops.h"
#include "quant/decode.h"
#include "quant/tiles.h"

namespace edge::test {
namespace {

constexpr int kGroup = 128;              // columns with one scale
constexpr double kFp8Tolerance = 0.045;  // of outputs, root mean square

OpShape shape_of(Format format, Act act, int n_rows) {
  return {.d_model = 290,  // two groups and a part of one
          .n_heads = 1,
          .n_kv_heads = 1,
          .head_dim = 72,  // an odd number of strips, of which one is a part
          .d_ffn = 16,
          .n_vocab = 16,
          .n_rope = 16,
          .n_rows = n_rows,
          .format = format,
          .act = act};
}

// The weights' product with what the norm makes, [n_rows][q_stride_].
void multiply(OpRig& rig) {
  rig.backend().begin_step(rig.rows());
  const ActNeeds needs = needs_of({&rig.weights().q});
  rig.backend().norm_quant(rig.residual(), rig.x(), {}, rig.norm(), needs, rig.model_act);
  rig.backend().proj_residual(rig.model_act, rig.weights().q, {}, rig.q_, rig.q_stride_);
}
std::unique_ptr<OpRig> product_of(const OpShape& shape, const OpWeights& weights,
                                  std::unique_ptr<Backend> backend) {
  auto rig = OpRig::create(shape, weights, std::move(backend)).take();
  multiply(*rig);
  REQUIRE(rig->backend().end_step().message() == "");
  return rig;
}

// The nearest number of four significant bits, which is E4M3 where its exponent reaches.
float rounded(float x) {
  int exponent = 0;
  std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(x, 4 - exponent)), exponent - 4);
}

// Rounded activations [n_rows][n_cols], as they are multiplied.
std::vector<double> acts_of(const OpRig& rig) {
  const int64_t n_cols = rig.shape().d_model;
  const bool is_twice = rig.shape().act == Act::kA8x2;
  const Int8Rows& from = is_twice ? rig.model_act.a8x2 : rig.model_act.a8;
  const int halves = is_twice ? 2 : 1;
  std::vector<double> acts;
  for (int r = 0; r < rig.shape().n_rows; ++r) {
    for (int64_t k = 0; k < n_cols; ++k) {
      float largest = 0;
      const int64_t first = k / kGroup * kGroup / kTileK;
      for (int64_t block = first; block < std::min(first + 4, from.n_blocks); ++block) {
        largest = std::max(largest, from.d[from.block_index(halves * r, block)]);
      }
      const float scale = 0.5f * largest;
      float v = 0;
      for (int half = 0; half < halves; ++half) {
        const int64_t block = from.block_index(halves * r + half, k / kTileK);
        v += static_cast<float>(from.q[kTileK * block + k % kTileK]) * (from.d[block] / scale);
      }
      float value = rounded(v);
      if (is_twice) value += rounded(v - value);
      acts.push_back(double{value} * scale);
    }
  }
  return acts;
}

// Rounded weights [n_rows][n_cols]: of a matrix whose rows have the factor 1, times what they have.
std::vector<double> weights_of(const Tensor& matrix) {
  std::vector<std::byte> bytes(matrix.data, matrix.data + matrix.n_bytes);
  const size_t of_strip = strip_bytes(matrix.format, matrix.n_tiles());
  std::vector<float> d_rows;
  for (size_t strip = 0; strip < static_cast<size_t>(matrix.n_strips()); ++strip) {
    auto* factors = reinterpret_cast<float*>(bytes.data() + strip * of_strip);
    d_rows.insert(d_rows.end(), factors, factors + kTileRows);
    std::fill_n(factors, kTileRows, 1.0f);
  }
  Tensor plain = matrix;
  plain.data = bytes.data();
  std::vector<float> values(static_cast<size_t>(matrix.n_rows * matrix.n_cols));
  decode_rows(plain, 0, matrix.n_rows, values.data());
  std::vector<double> weights;
  for (size_t i = 0; i < values.size(); ++i) {
    weights.push_back(double{rounded(values[i])} * d_rows[i / static_cast<size_t>(matrix.n_cols)]);
  }
  return weights;
}

void check_sums(const OpRig& found, double tolerance) {
  const std::vector<double> acts = acts_of(found), weights = weights_of(found.weights().q);
  const auto n_cols = static_cast<size_t>(found.shape().d_model);
  for (size_t r = 0; r < acts.size() / n_cols; ++r) {
    for (size_t row = 0; row < weights.size() / n_cols; ++row) {
      double sum = 0, magnitudes = 0;
      for (size_t k = 0; k < n_cols; ++k) {
        const double product = acts[r * n_cols + k] * weights[row * n_cols + k];
        sum += product;
        magnitudes += std::abs(product);
      }
      const double y =
          found.q_[static_cast<int64_t>(r) * found.q_stride_ + static_cast<int64_t>(row)];
      CAPTURE(r);
      CAPTURE(row);
      REQUIRE(std::abs(y - sum) <= tolerance * magnitudes);
    }
  }
}

// How far outputs are from the CPU's, as a share of theirs.
double distance(const OpRig& wanted, const OpRig& found) {
  double of_difference = 0, of_wanted = 0;
  for (int r = 0; r < wanted.shape().n_rows; ++r) {
    for (int64_t i = 0; i < wanted.weights().q.n_rows; ++i) {
      const double y = wanted.q_[r * wanted.q_stride_ + i];
      const double other = found.q_[r * found.q_stride_ + i];
      of_difference += (y - other) * (y - other);
      of_wanted += y * y;
    }
  }
  return std::sqrt(of_difference / of_wanted);
}

void check_product(const MakeBackend& make, double sum_tolerance, Format format, Act act,
                   int n_rows) {
  const std::string name(format_name(format));
  CAPTURE(name);
  CAPTURE(n_rows);
  const OpShape shape = shape_of(format, act, n_rows);
  const OpWeights weights(shape);
  const auto cpu = product_of(shape, weights, create_cpu_backend(kernel_table(Isa::kScalar), 1));
  const auto found = product_of(shape, weights, make());
  const double share = distance(*cpu, *found);
  if (n_rows < 17) {
    CHECK(share == 0);
    return;
  }
  check_sums(*found, sum_tolerance);
  MESSAGE(name << ", " << act_name(act) << ": " << share << " of the outputs");
  CHECK(share > 0);
  CHECK(share < kFp8Tolerance);
}

}  // namespace

void check_fp8_products(const MakeBackend& make, std::span<const Format> formats,
                        double sum_tolerance) {
  for (const Format format : formats) check_product(make, sum_tolerance, format, Act::kA8, 35);
  for (const Act act : {Act::kA8, Act::kA8x2}) {
    for (const int n_rows : {16, 17, 130}) {
      check_product(make, sum_tolerance, formats[0], act, n_rows);
    }
  }
}

void check_fp8_not_finite(const MakeBackend& make) {
  constexpr int kRow = 3;
  const OpShape shape = shape_of(Format::kL8_32, Act::kA8, 17);
  OpWeights weights(shape);
  const auto whole = product_of(shape, weights, make());
  // Of the second group.
  std::vector<std::byte> bytes(weights.q.data, weights.q.data + weights.q.n_bytes);
  const uint16_t infinity = 0x7c00;
  std::byte* tile = bytes.data() + kStripHeaderBytes + 5 * sizeof(TileL8_32);
  std::memcpy(tile + offsetof(TileL8_32, s) + kRow * sizeof infinity, &infinity, sizeof infinity);
  std::memcpy(const_cast<std::byte*>(weights.q.data), bytes.data(), bytes.size());
  const auto broken = product_of(shape, weights, make());
  for (int r = 0; r < shape.n_rows; ++r) {
    for (int64_t i = 0; i < weights.q.n_rows; ++i) {
      const float y = broken->q_[r * broken->q_stride_ + i];
      if (i == kRow) {
        REQUIRE(!std::isfinite(y));
      } else {
        REQUIRE(y == whole->q_[r * whole->q_stride_ + i]);
      }
    }
  }
}

}  // namespace edge::test
