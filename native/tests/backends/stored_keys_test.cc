#include "backends/cpu/stored_keys.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "backends/cpu/kv_editor.h"
#include "doctest/doctest.h"
#include "kernels/attention.h"
#include "kernels/kernels.h"
#include "kernels/kv_slot.h"

namespace edge {
namespace {

constexpr int kHeads = 4, kKvHeads = 2, kHeadDim = 24;
constexpr size_t kDim = kHeadDim;

// A constant part much larger than what varies, and channels that differ by two orders.
struct Fixture {
  explicit Fixture(bool mixes, bool balances)
      : kv{.n_kv_heads = kKvHeads,
           .head_dim = kHeadDim,
           .mixes_keys = mixes,
           .balances_keys = balances} {
    for (size_t i = 0; i < mean_values.size(); ++i) {
      mean_values[i] = static_cast<float>(static_cast<int>(i * i % 13) - 6);
      scale_values[i] = 0.125f * static_cast<float>(1 + i * i % 17);
    }
    mean = as_tensor(mean_values);
    scale = as_tensor(scale_values);
  }
  static Tensor as_tensor(const std::vector<float>& values) {
    Tensor tensor;
    tensor.format = Format::kF32;
    tensor.n_rows = 1;
    tensor.n_cols = static_cast<int64_t>(values.size());
    tensor.data = reinterpret_cast<const std::byte*>(values.data());
    tensor.n_bytes = values.size() * sizeof(float);
    return tensor;
  }
  StoredKeys stored() const { return {kv, balance()}; }
  KeyBalance balance() const { return {&mean, &scale}; }
  std::vector<float> random(size_t n) {
    std::normal_distribution<float> normal;
    std::vector<float> values(n);
    for (float& x : values) x = normal(rng);
    return values;
  }

  std::mt19937 rng{9};
  std::vector<float> mean_values = std::vector<float>(kKvHeads * kDim);
  std::vector<float> scale_values = std::vector<float>(kKvHeads * kDim);
  Tensor mean, scale;
  KvLayerLayout kv;
};

double dot(const float* a, const float* b) {
  double sum = 0;
  for (size_t i = 0; i < kDim; ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

}  // namespace

TEST_CASE("scores of stored keys differ from those of keys by one number for each query") {
  for (const bool mixes : {false, true}) {
    for (const bool balances : {false, true}) {
      Fixture f(mixes, balances);
      const StoredKeys stored = f.stored();
      const std::vector<float> queries = f.random(kHeads * kDim);
      std::vector<float> met = queries;
      stored.meet(met.data(), kHeads);
      for (size_t head = 0; head < kHeads; ++head) {
        const size_t kv_head = head / (kHeads / kKvHeads);
        const double constant =
            balances ? dot(&queries[head * kDim], &f.mean_values[kv_head * kDim]) : 0;
        for (int n = 0; n < 5; ++n) {
          const std::vector<float> key = f.random(kDim);
          std::vector<float> entered = key;
          stored.enter(static_cast<int>(kv_head), entered.data());
          CHECK((entered == key) == !(mixes || balances));
          const double wanted = dot(&queries[head * kDim], key.data()) - constant;
          CHECK(std::abs(dot(&met[head * kDim], entered.data()) - wanted) < 1e-4);
          stored.leave(static_cast<int>(kv_head), entered.data());
          for (size_t i = 0; i < kDim; ++i) CHECK(std::abs(entered[i] - key[i]) < 1e-5f);
        }
      }
    }
  }
}

// The rotary turn of a key to a position, halves convention.
static std::vector<float> turned(const std::vector<float>& key, const std::vector<float>& inv_freq,
                                 int position) {
  std::vector<float> out = key;
  const size_t half = inv_freq.size();
  for (size_t i = 0; i < half; ++i) {
    const float angle = inv_freq[i] * static_cast<float>(position);
    out[i] = key[i] * std::cos(angle) - key[i + half] * std::sin(angle);
    out[i + half] = key[i + half] * std::cos(angle) + key[i] * std::sin(angle);
  }
  return out;
}

TEST_CASE("keys that are turned stand as those stored at that position, however keys stand") {
  const std::vector<float> inv_freq = {1, 0.4f, 0.1f, 0.01f, 0.001f};
  const int number = 2 * kPageTokens + 3;
  for (const KvFormatInfo& format : kKvFormats) {
    for (const auto& [mixes, balances] :
         {std::pair(false, false), {true, false}, {false, true}, {true, true}}) {
      CAPTURE(format.name);
      Fixture f(mixes, balances);
      f.kv.format = format.format;
      const StoredKeys stored = f.stored();
      std::vector<std::byte> page(f.kv.layer_bytes(2));
      std::byte* pages[] = {nullptr, nullptr, page.data()};
      const KvTable table{pages, 3};
      std::vector<std::vector<float>> keys;
      for (int kv_head = 0; kv_head < kKvHeads; ++kv_head) {
        keys.push_back(f.random(kDim));
        std::vector<float> key = turned(keys.back(), inv_freq, 90);
        stored.enter(kv_head, key.data());
        const KvSlot slot = f.kv.slot(page.data(), number, kv_head);
        REQUIRE(active_kernels().attention->store_key(slot, key.data()));
      }
      const KeyTurn turn{inv_freq.data(), 10, 60, f.balance()};
      REQUIRE(KvEditor(active_kernels(), 1).turn_keys({{&table}, number, 1}, f.kv, turn));
      for (int kv_head = 0; kv_head < kKvHeads; ++kv_head) {
        std::vector<float> found(kDim);
        load_key(f.kv.slot(page.data(), number, kv_head), found.data());
        std::vector<float> wanted = turned(keys[static_cast<size_t>(kv_head)], inv_freq, 30);
        stored.enter(kv_head, wanted.data());
        float largest = 0, error = 0;
        for (size_t i = 0; i < kDim; ++i) {
          largest = std::max(largest, std::abs(wanted[i]));
          error = std::max(error, std::abs(found[i] - wanted[i]));
        }
        CHECK(error < 0.05f * largest);
      }
    }
  }
}

}  // namespace edge
