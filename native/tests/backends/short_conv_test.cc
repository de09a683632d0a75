// The gated short convolution: for every instruction set, number of threads, cut of a text and tree
// of drafts, a row has the bits of the same tokens one after the other, and the value of the
// formula.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "base/half.h"
#include "doctest/doctest.h"
#include "kernels/encode.h"
#include "kernels/kernels.h"

namespace edge {
namespace {

using Floats = std::vector<float>;

constexpr int kCols = 40, kPadded = 64, kTaps = 3, kSlots = 64;
constexpr auto kWidth = static_cast<size_t>(kCols);

Floats random_floats(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 1);
  Floats values(n);
  for (float& value : values) value = normal(rng);
  return values;
}

// The layer's weights, the inputs of some tokens, and the pages of a sequence of them.
struct Layer {
  std::unique_ptr<Backend> backend;
  std::vector<std::byte> in_bytes;
  Floats taps = random_floats(kTaps * kWidth, 2);
  Tensor in, taps_tensor;
  Floats tokens = random_floats(kSlots * kWidth, 3);
  KvLayerLayout kv{.offset_bytes = 128, .state_cols = kWidth};
  std::vector<std::vector<std::byte>> memory;
  std::vector<std::byte*> pages;
  KvTable table;

  Layer(Isa isa, int n_threads) : backend(create_cpu_backend(kernel_table(isa), n_threads)) {
    const Floats values = random_floats(3 * kWidth * kWidth, 1);
    in = {.format = Format::kF16, .act = Act::kF32, .n_rows = 3 * kCols, .n_cols = kCols};
    in_bytes.resize(tensor_bytes(Format::kF16, 3 * kCols, kCols).value());
    REQUIRE(
        encode_tensor(Format::kF16, values.data(), 3 * kCols, kCols, nullptr, in_bytes, 1).is_ok());
    in.data = in_bytes.data();
    in.n_bytes = in_bytes.size();
    taps_tensor = {.format = Format::kF32,
                   .n_rows = 1,
                   .n_cols = kTaps * kCols,
                   .data = reinterpret_cast<const std::byte*>(taps.data())};
    for (int page = 0; page < kSlots / kPageTokens; ++page) {
      memory.emplace_back(kv.offset_bytes + kPageTokens * kv.state_bytes());
      pages.push_back(memory.back().data());
    }
    table = {pages.data(), static_cast<int>(pages.size())};
  }

  // Row r is of token ids[r] at slots[r]. [rows][kCols]
  Floats run(std::span<const int> ids, std::span<RowInput> rows) {
    const auto n = static_cast<int64_t>(rows.size());
    for (RowInput& row : rows) row.kv = {&table};
    Floats bcx(static_cast<size_t>(n) * 128), f(static_cast<size_t>(n) * kPadded), act_f = f;
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto from = tokens.begin() + static_cast<std::ptrdiff_t>(ids[r] * kCols);
      std::copy_n(from, kCols, act_f.begin() + static_cast<std::ptrdiff_t>(r * kPadded));
    }
    ActRows act, out;
    act.set_cols(kPadded);
    act.set_rows(static_cast<int>(n));
    act.f = act_f.data();
    out.set_cols(kPadded);
    out.f = f.data();
    backend->begin_step(rows);
    backend->short_conv(act, {&in, &taps_tensor, kTaps}, kv, bcx.data(), {.f32 = true}, out);
    REQUIRE(backend->end_step().is_ok());
    Floats made;
    for (size_t r = 0; r < rows.size(); ++r) {
      const float* const row = f.data() + r * kPadded;
      made.insert(made.end(), row, row + kCols);
      for (int c = kCols; c < kPadded; ++c) CHECK(row[c] == 0);
    }
    return made;
  }
  // Tokens one behind the other, `n_rows` of them a step, from position 0.
  Floats run_in_order(std::span<const int> ids, size_t n_rows) {
    Floats made;
    for (size_t begin = 0; begin < ids.size(); begin += n_rows) {
      const size_t n = std::min(n_rows, ids.size() - begin);
      std::vector<RowInput> rows(n);
      for (size_t i = 0; i < n; ++i) {
        rows[i].position = rows[i].slot = static_cast<int32_t>(begin + i);
      }
      const Floats part = run(ids.subspan(begin, n), rows);
      made.insert(made.end(), part.begin(), part.end());
    }
    return made;
  }
};

std::vector<int> first_ids(int n) {
  std::vector<int> ids;
  for (int i = 0; i < n; ++i) ids.push_back(i);
  return ids;
}

std::span<const float> row_of(const Floats& rows, size_t r) {
  return std::span(rows).subspan(r * kWidth, kWidth);
}

}  // namespace

TEST_CASE("a short convolution is its formula, with nothing before the text") {
  Layer layer(Isa::kScalar, 1);
  const std::vector<int> ids = first_ids(20);
  const Floats made = layer.run_in_order(ids, 20);
  Floats weights = random_floats(3 * kWidth * kWidth, 1);
  for (float& weight : weights) weight = half_to_float(float_to_half(weight));
  std::vector<std::array<double, 3 * kWidth>> bcx(20);
  for (size_t t = 0; t < 20; ++t) {
    for (size_t o = 0; o < 3 * kWidth; ++o) {
      for (size_t c = 0; c < kWidth; ++c) {
        bcx[t][o] += static_cast<double>(weights[o * kWidth + c]) *
                     static_cast<double>(layer.tokens[t * kWidth + c]);
      }
    }
  }
  for (size_t t = 0; t < 20; ++t) {
    for (size_t c = 0; c < kWidth; ++c) {
      double sum = 0;
      for (size_t tap = 0; tap < kTaps; ++tap) {
        if (t + tap + 1 < kTaps) continue;
        const std::array<double, 3 * kWidth>& at = bcx[t + tap + 1 - kTaps];
        sum += static_cast<double>(layer.taps[tap * kWidth + c]) * at[c] * at[2 * kWidth + c];
      }
      const double wanted = sum * bcx[t][kWidth + c];
      CHECK(std::fabs(static_cast<double>(made[t * kWidth + c]) - wanted) <=
            1e-3 * (1 + std::fabs(wanted)));
    }
  }
}

TEST_CASE("every instruction set, cut and number of threads gives the same bits") {
  const std::vector<int> ids = first_ids(50);
  const Floats wanted = Layer(Isa::kScalar, 1).run_in_order(ids, 50);
  for (const Isa isa : supported_isas()) {
    CAPTURE(isa_name(isa));
    for (const size_t n_rows : {size_t{1}, size_t{7}, size_t{50}}) {
      for (const int n_threads : {1, 2}) {
        CHECK(Layer(isa, n_threads).run_in_order(ids, n_rows) == wanted);
      }
    }
  }
}

TEST_CASE("a draft's state is that of the tokens above it, wherever they stand") {
  // After tokens 0 to 17: 20 at slot 18, and behind it 21 and 22 as siblings at slots 19 and 20,
  // 23 below 21 at slot 21 and 24 below 22 at slot 22.
  Layer layer(Isa::kScalar, 2);
  layer.run_in_order(first_ids(18), 18);
  const std::vector<std::vector<int32_t>> tails = {{}, {}, {18, 20}, {18, 19, 21}, {18, 20, 22}};
  const std::vector<int> ids = {20, 21, 22, 23, 24};
  std::vector<RowInput> rows(5);
  for (size_t r = 0; r < 5; ++r) {
    rows[r].slot = static_cast<int32_t>(18 + r);
    rows[r].tail = tails[r];
    rows[r].position = rows[r].n_seen() - 1;
  }
  const Floats made = layer.run(ids, rows);
  const std::vector<std::vector<int>> paths = {
      {20}, {20, 21}, {20, 22}, {20, 21, 23}, {20, 22, 24}};
  for (size_t r = 0; r < 5; ++r) {
    CAPTURE(r);
    std::vector<int> path = first_ids(18);
    path.insert(path.end(), paths[r].begin(), paths[r].end());
    const Floats alone = Layer(Isa::kScalar, 1).run_in_order(path, 5);
    const auto wanted = row_of(alone, path.size() - 1), got = row_of(made, r);
    CHECK(std::equal(wanted.begin(), wanted.end(), got.begin()));
  }
}

}  // namespace edge
