// Adapters in the backend's products: whatever the instruction set, the threads and the other rows
// of a step, a row gets W x + B (A x) of its own adapter, the sums of docs/KERNELS.md.
#include "backends/cpu/lora_driver.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "doctest/doctest.h"
#include "kernels/encode.h"
#include "kernels/kernels.h"

namespace edge {
namespace {

using Floats = std::vector<float>;

struct Matrix {
  std::vector<std::byte> bytes;
  Tensor tensor;
};

Matrix random_matrix(Format format, int64_t n_rows, int64_t n_cols, uint32_t seed) {
  std::mt19937 rng(seed);
  Floats values(static_cast<size_t>(n_rows * n_cols));
  for (float& value : values) value = static_cast<float>(rng() % 2001) * 1e-3f - 1.0f;
  Matrix m;
  m.tensor = {.format = format,
              .act = format == Format::kF16 ? Act::kF32 : Act::kA8,
              .n_rows = n_rows,
              .n_cols = n_cols};
  m.bytes.resize(
      tensor_bytes(format, static_cast<uint64_t>(n_rows), static_cast<uint64_t>(n_cols)).value());
  REQUIRE(encode_tensor(format, values.data(), n_rows, n_cols, nullptr, m.bytes, 1).is_ok());
  m.tensor.data = m.bytes.data();
  m.tensor.n_bytes = m.bytes.size();
  return m;
}

// Widths and ranks are no multiples of 16 on purpose; 40 rows are more than one unit has strips.
constexpr int64_t kIn = 88;
constexpr int64_t kOut = 600;
constexpr int64_t kOutPadded = 608;

struct Change {
  Matrix a, b;
  explicit Change(int64_t rank, uint32_t seed)
      : a(random_matrix(Format::kF16, rank, kIn, seed)),
        b(random_matrix(Format::kF16, kOut, rank, seed + 1)) {}
  LoraRows on(int row0, int n_rows) const { return {row0, n_rows, &a.tensor, &b.tensor}; }
};

// A step of one op on random rows, with its memory in the backend.
struct Step {
  std::unique_ptr<Backend> backend;
  std::vector<RowInput> rows;
  ActRows act;

  Step(Isa isa, int n_threads, int n_rows, ActNeeds needs)
      : backend(create_cpu_backend(kernel_table(isa), n_threads)),
        rows(static_cast<size_t>(n_rows)) {
    std::mt19937 rng(9);
    std::normal_distribution<float> normal(0, 0.5f);
    FloatRows x{floats(n_rows * 96), kIn, 96};
    for (int r = 0; r < n_rows; ++r) {
      for (int64_t c = 0; c < kIn; ++c) x.data[r * 96 + c] = normal(rng);
    }
    act = make_act(n_rows, 96);
    weight.assign(kIn, 1.0f);
    norm_weight = {.format = Format::kF32,
                   .n_rows = 1,
                   .n_cols = kIn,
                   .data = reinterpret_cast<const std::byte*>(weight.data())};
    backend->begin_step(rows);
    const Norm norm{.weight = &norm_weight, .eps = 1e-5f};
    backend->norm_quant({}, x, {}, norm, needs, act);
  }

  float* floats(int64_t n) {
    auto memory = backend->alloc(static_cast<size_t>(n) * sizeof(float));
    REQUIRE(memory.is_ok());
    return reinterpret_cast<float*>(memory.value());
  }

  ActRows make_act(int n_rows, int64_t n_cols) {
    ActRows out;
    out.set_cols(n_cols);
    out.f = floats(n_rows * n_cols);
    out.a8.q = reinterpret_cast<int8_t*>(floats(n_rows * n_cols / 4 + 16));
    out.a8.d = floats(n_rows * n_cols / 32);
    out.a8.bias = reinterpret_cast<int32_t*>(floats(n_rows * n_cols / 16));
    return out;
  }

  Floats weight;
  Tensor norm_weight;
};

constexpr ActNeeds kBoth{.a8 = true, .f32 = true};

Floats projected(Isa isa, int n_threads, int n_rows, const Matrix& w, LoraSpan lora,
                 ActNeeds needs = kBoth) {
  Step step(isa, n_threads, n_rows, needs);
  float* delta = step.floats(n_rows * kOutPadded);
  step.backend->proj_residual(step.act, w.tensor, lora, delta, kOutPadded);
  return {delta, delta + n_rows * kOutPadded};
}

Floats row_of(const Floats& y, int row) {
  return {y.begin() + row * kOutPadded, y.begin() + row * kOutPadded + kOut};
}

bool same(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The definition, by scalar kernels on one row.
Floats defined(const Step& step, int row, const Matrix& w, const Change& change) {
  const MatmulDriver matmul(kernel_table(Isa::kScalar), 1);
  const auto product = [&](const Tensor& tensor, const float* x, int64_t n_cols) {
    ActRows one;
    one.set_rows(1);
    one.set_cols(n_cols);
    one.f = const_cast<float*>(x);
    Floats y(static_cast<size_t>((tensor.n_rows + 31) / 32 * 32));
    matmul.run_strips(tensor, one, 0, tensor.n_strips(), y.data(), std::ssize(y));
    return y;
  };
  const float* x = step.act.f + row * step.act.n_cols_padded;
  Floats y = product(w.tensor, x, step.act.n_cols_padded);
  const Floats hidden = product(change.a.tensor, x, step.act.n_cols_padded);
  const Floats more = product(change.b.tensor, hidden.data(), std::ssize(hidden));
  for (size_t i = 0; i < y.size(); ++i) y[i] += more[i];
  y.resize(kOut);
  return y;
}

TEST_CASE("a product with an adapter is W x + B (A x), on every level and with any threads") {
  const Matrix w = random_matrix(Format::kF16, kOut, kIn, 1);
  for (const int64_t rank : {1, 16, 40}) {
    CAPTURE(rank);
    const Change change(rank, 20);
    for (const int n_rows : {1, 21}) {
      const std::vector<LoraRows> all = {change.on(0, n_rows)};
      const Floats expected = projected(Isa::kScalar, 1, n_rows, w, all);
      const Step step(Isa::kScalar, 1, n_rows, kBoth);
      for (const int row : {0, n_rows - 1}) {
        CHECK(same(row_of(expected, row), defined(step, row, w, change)));
      }
      for (const Isa isa : supported_isas()) {
        CAPTURE(isa_name(isa));
        CHECK(same(projected(isa, 1, n_rows, w, all), expected));
        CHECK(same(projected(isa, 3, n_rows, w, all), expected));
      }
    }
  }
}

TEST_CASE("rows of one step with different adapters and none get what each gets alone") {
  const Matrix w = random_matrix(Format::kE4_16, kOut, kIn, 1);
  const Change one(5, 30), other(33, 40);
  constexpr int kRows = 20;
  const Isa best = supported_isas().front();
  const Floats with_one = projected(best, 2, kRows, w, std::vector{one.on(0, kRows)});
  const Floats with_other = projected(best, 2, kRows, w, std::vector{other.on(0, kRows)});
  const Floats without = projected(best, 2, kRows, w, {});
  // Not even the rows as floats, which adapters read, change what a row without one gets.
  CHECK(same(projected(best, 2, kRows, w, {}, {.a8 = true}), without));
  const std::vector<LoraRows> runs = {one.on(1, 2), other.on(3, 10), one.on(17, 3)};
  const Floats mixed = projected(best, 2, kRows, w, runs);
  for (int row = 0; row < kRows; ++row) {
    CAPTURE(row);
    const bool is_one = row == 1 || row == 2 || row >= 17;
    const bool is_other = row >= 3 && row < 13;
    const Floats& alone = is_one ? with_one : is_other ? with_other : without;
    CHECK(same(row_of(mixed, row), row_of(alone, row)));
    if (is_one) CHECK_FALSE(same(row_of(mixed, row), row_of(without, row)));
  }
}

TEST_CASE("a feed-forward network adds the changes before its activation function") {
  const Matrix gate = random_matrix(Format::kE4_16, kOut, kIn, 1);
  const Matrix up = random_matrix(Format::kE8_32, kOut, kIn, 2);
  const Change to_gate(7, 50), to_up(20, 60);
  constexpr int kRows = 19;
  const auto run = [&](Isa isa, int n_threads, LoraSpan gate_lora, LoraSpan up_lora, bool gated) {
    Step step(isa, n_threads, kRows, kBoth);
    ActRows out = step.make_act(kRows, kOutPadded);
    const FfnIn ffn{.gate = gated ? &gate.tensor : nullptr,
                    .up = &up.tensor,
                    .gate_lora = gate_lora,
                    .up_lora = up_lora};
    step.backend->ffn_in(step.act, ffn, kBoth, out);
    CHECK(step.backend->end_step().is_ok());
    return Floats(out.f, out.f + kRows * kOutPadded);
  };
  const std::vector gate_lora{to_gate.on(0, 11)}, up_lora{to_up.on(4, kRows - 4)};
  const Floats expected = run(Isa::kScalar, 1, gate_lora, up_lora, true);
  const Floats ungated = run(Isa::kScalar, 1, {}, up_lora, false);
  for (const Isa isa : supported_isas()) {
    CAPTURE(isa_name(isa));
    CHECK(same(run(isa, 3, gate_lora, up_lora, true), expected));
    CHECK(same(run(isa, 3, {}, up_lora, false), ungated));
  }
  const Floats plain = run(Isa::kScalar, 1, {}, {}, true);
  const Floats gate_only = run(Isa::kScalar, 1, gate_lora, {}, true);
  CHECK(same(row_of(expected, 0), row_of(gate_only, 0)));
  CHECK_FALSE(same(row_of(expected, 0), row_of(plain, 0)));
  CHECK_FALSE(same(row_of(expected, 5), row_of(gate_only, 5)));
  CHECK_FALSE(same(row_of(ungated, 5), row_of(run(Isa::kScalar, 1, {}, {}, false), 5)));
}

}  // namespace
}  // namespace edge
