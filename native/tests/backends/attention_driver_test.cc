// The attention driver: a query's bits depend neither on the number of threads, which decides how
// the work is cut, nor on the queries beside it.
#include "backends/cpu/attention_driver.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/kernels.h"
#include "kernels/kv_slot.h"

namespace edge {
namespace {

constexpr int kHeadDim = 16;

// Pages of random keys and values for one sequence.
struct Sequence {
  std::vector<std::vector<std::byte>> pages;
  std::vector<std::byte*> pointers;
  KvTable table;

  Sequence(const KvLayerLayout& kv, int n_positions, uint32_t seed) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    for (int t = 0; t < n_positions; ++t) {
      if (t % kPageTokens == 0) pages.emplace_back(kv.layer_bytes(t / kPageTokens));
      float head[kHeadDim];
      for (int h = 0; h < kv.n_kv_heads; ++h) {
        const KvSlot slot = kv.slot(pages.back().data(), t, h);
        for (float& x : head) x = normal(rng);
        REQUIRE(active_kernels().attention->store_key(slot, head));
        for (float& x : head) x = normal(rng);
        REQUIRE(active_kernels().attention->store_value(slot, head));
      }
    }
    for (auto& page : pages) pointers.push_back(page.data());
    table = {pointers.data(), static_cast<int>(pointers.size())};
  }
  KvView view() const { return {&table}; }
};

std::vector<float> attend(const std::vector<RowInput>& rows, const AttentionShape& shape,
                          const KvLayerLayout& kv, int n_threads) {
  std::vector<float> q(rows.size() * static_cast<size_t>(shape.n_heads * shape.head_dim));
  for (size_t row = 0; row < rows.size(); ++row) {
    std::mt19937 rng(static_cast<uint32_t>(rows[row].position));  // of the row, not of its place
    std::normal_distribution<float> normal;
    for (int i = 0; i < shape.n_heads * shape.head_dim; ++i) {
      q[row * static_cast<size_t>(shape.n_heads * shape.head_dim) + static_cast<size_t>(i)] =
          normal(rng);
    }
  }
  AttentionDriver driver(*active_kernels().attention, n_threads);
  REQUIRE(driver.run(rows, q.data(), shape, kv));
  return q;
}

bool same_bits(const float* a, const float* b, size_t n) {
  return std::memcmp(a, b, n * sizeof(float)) == 0;
}

TEST_CASE("attention gives the same bits whole and split by segment, alone and in company") {
  for (const auto& [n_kv_heads, format] : {std::pair{1, KvFormat::kF16},
                                           {3, KvFormat::kF16},
                                           {3, KvFormat::kK8V8},
                                           {3, KvFormat::kK6V4}}) {
    const AttentionShape shape{2 * n_kv_heads, n_kv_heads, kHeadDim, 0.25f};
    const KvLayerLayout kv{0, n_kv_heads, kHeadDim, 0, format};
    const Sequence longer(kv, 17000, 1);  // more than one wave of 64 segments
    const Sequence shorter(kv, 600, 2);
    const std::vector<RowInput> rows = {
        {0, 16998, 16998, longer.view()}, {0, 16999, 16999, longer.view()},
        {0, 255, 255, shorter.view()},    {0, 256, 256, shorter.view()},
        {0, 599, 599, shorter.view()},
    };
    const std::vector<float> whole = attend(rows, shape, kv, 1);
    for (const int n_threads : {2, 3, 16}) {
      const std::vector<float> split = attend(rows, shape, kv, n_threads);
      CHECK(same_bits(whole.data(), split.data(), whole.size()));
    }
    const auto n_columns = static_cast<size_t>(shape.n_heads * shape.head_dim);
    for (size_t row = 0; row < rows.size(); ++row) {
      const std::vector<float> alone = attend({rows[row]}, shape, kv, 4);
      CHECK(same_bits(whole.data() + row * n_columns, alone.data(), n_columns));
    }
  }
}

// softmax(cap(q K^T * scale)) V of one row's first head over its window, in double.
std::vector<double> attended(const Sequence& sequence, const RowInput& row,
                             const AttentionShape& shape, const KvLayerLayout& kv) {
  std::mt19937 rng(static_cast<uint32_t>(row.position));
  std::normal_distribution<float> normal;
  std::vector<float> q(kHeadDim), key(kHeadDim), value(kHeadDim);
  for (float& x : q) x = normal(rng);
  int8_t levels[kHeadDim];
  float step = 0;
  int32_t sum = 0;
  REQUIRE(active_kernels().attention->quantize_query(q.data(), kHeadDim, kHeadDim,
                                                     {levels, &step, &sum}));
  std::vector<double> out(kHeadDim, 0.0);
  double total = 0;
  const int first = shape.window > 0 ? std::max(0, row.slot + 1 - shape.window) : 0;
  for (int t = first; t <= row.slot; ++t) {
    const KvSlot slot = kv.slot(sequence.pointers[static_cast<size_t>(t / kPageTokens)], t, 0);
    load_key(slot, key.data());
    load_value(slot, value.data());
    double score = 0;
    for (size_t i = 0; i < kHeadDim; ++i) {
      const float seen = slot.head.key_bits == 16 ? q[i] : static_cast<float>(levels[i]) * step;
      score += static_cast<double>(seen) * static_cast<double>(key[i]);
    }
    score *= static_cast<double>(shape.scale);
    const double cap = static_cast<double>(shape.softcap);
    if (cap > 0) score = cap * std::tanh(score / cap);
    const double p = std::exp(score);
    total += p;
    for (size_t i = 0; i < kHeadDim; ++i) out[i] += p * static_cast<double>(value[i]);
  }
  for (double& x : out) x /= total;
  return out;
}

TEST_CASE("a window hides what is before it, whole or split, alone or in company") {
  for (const auto& [window, format] : {std::pair{1, KvFormat::kF16},
                                       {40, KvFormat::kF16},
                                       {256, KvFormat::kF16},
                                       {300, KvFormat::kF16},
                                       {1000, KvFormat::kF16},
                                       {0, KvFormat::kK6V4},
                                       {40, KvFormat::kK6V4},
                                       {300, KvFormat::kK8V4}}) {
    CAPTURE(window);
    AttentionShape shape{2, 1, kHeadDim, 0.25f, 2.0f, window};
    const KvLayerLayout kv{0, 1, kHeadDim, 0, format};
    const Sequence sequence(kv, 1400, 3);
    std::vector<RowInput> rows;  // groups of four queries whose windows begin on both sides of 256
    for (const int position : {0, 31, 39, 254, 255, 256, 295, 511, 512, 555, 556, 1299, 1300}) {
      rows.push_back({0, position, position, sequence.view()});
    }
    // Integer values meet weights of 15 bits.
    const double tolerance = format == KvFormat::kF16 ? 1e-5 : 1e-4;
    const std::vector<float> whole = attend(rows, shape, kv, 1);
    for (const int n_threads : {2, 16}) {
      const std::vector<float> split = attend(rows, shape, kv, n_threads);
      CHECK(same_bits(whole.data(), split.data(), whole.size()));
    }
    for (size_t row = 0; row < rows.size(); ++row) {
      CAPTURE(rows[row].position);
      const float* const got = whole.data() + row * 2 * kHeadDim;
      const std::vector<float> alone = attend({rows[row]}, shape, kv, 4);
      CHECK(same_bits(got, alone.data(), 2 * kHeadDim));
      const std::vector<double> expected = attended(sequence, rows[row], shape, kv);
      for (size_t i = 0; i < kHeadDim; ++i) {
        CHECK(std::fabs(static_cast<double>(got[i]) - expected[i]) < tolerance);
      }
    }
  }
}

// A text of n tokens whose tokens from `fork` on stand in other slots, beyond its end, in any
// order, with what is not part of it everywhere else.
struct Branch {
  std::vector<int32_t> slots;  // of the tokens from `fork` - 1 on
  Sequence sequence;

  Branch(const KvLayerLayout& kv, const Sequence& text, int fork, int n, uint32_t seed)
      : sequence(kv, n + 16, seed) {
    std::mt19937 rng(seed);
    for (int t = fork; t < n + 16; ++t) slots.push_back(t);
    std::shuffle(slots.begin(), slots.end(), rng);
    slots.resize(static_cast<size_t>(n - fork));
    for (int t = 0; t < fork; ++t) copy(kv, text, t, t);
    for (int t = fork; t < n; ++t) copy(kv, text, t, slots[static_cast<size_t>(t - fork)]);
    slots.insert(slots.begin(), fork - 1);
  }
  void copy(const KvLayerLayout& kv, const Sequence& text, int from, int to) {
    for (int head = 0; head < kv.n_kv_heads; ++head) {
      move_slot(kv.slot(text.pointers[static_cast<size_t>(from / kPageTokens)], from, head),
                kv.slot(sequence.pointers[static_cast<size_t>(to / kPageTokens)], to, head));
    }
  }
};

TEST_CASE("a row in a branch of drafts has the bits of the text without the other branches") {
  for (const KvFormat format : {KvFormat::kF16, KvFormat::kK8V8, KvFormat::kK6V4}) {
    for (const int window : {0, 5, 40, 300}) {
      const AttentionShape shape{6, 3, kHeadDim, 0.25f, 0, window};
      const KvLayerLayout kv{0, 3, kHeadDim, 0, format};
      for (const int n : {16, 47, 50, 97, 256, 263, 515}) {
        CAPTURE(n);
        CAPTURE(window);
        const Sequence text(kv, n, 4);
        const Branch a(kv, text, n - 15, n, 5), b(kv, text, n - 1, n, 6);
        const std::vector<float> plain = attend({{0, n - 1, n - 1, text.view()}}, shape, kv, 1);
        std::vector<RowInput> rows = {{0, n - 16, n - 16, a.sequence.view()},
                                      {0, n - 1, a.slots.back(), a.sequence.view()},
                                      {0, n - 1, b.slots.back(), b.sequence.view()}};
        rows[1].tail = a.slots;
        rows[2].tail = b.slots;
        for (const int n_threads : {1, 2, 16}) {
          const std::vector<float> got = attend(rows, shape, kv, n_threads);
          CHECK(same_bits(plain.data(), got.data() + plain.size(), plain.size()));
          CHECK(same_bits(plain.data(), got.data() + 2 * plain.size(), plain.size()));
        }
      }
    }
  }
}

}  // namespace
}  // namespace edge
