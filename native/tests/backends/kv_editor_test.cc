// Tokens that are moved together within pages of one format and across the end of the first ones.
#include "backends/cpu/kv_editor.h"

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/attention.h"
#include "kernels/kernels.h"
#include "kernels/kv_slot.h"

namespace edge {
namespace {

constexpr int kHeadDim = 20;
constexpr int kSlots = 100;

struct Fixture {
  explicit Fixture(KvFormat format) : kv{.n_kv_heads = 1, .head_dim = kHeadDim, .format = format} {
    for (int page = 0; page * kPageTokens < kSlots; ++page) {
      pages.emplace_back(kv.layer_bytes(page));
      pointers.push_back(pages.back().data());
    }
    std::mt19937 rng(4);
    std::normal_distribution<float> normal;
    std::vector<float> head(kHeadDim);
    for (int slot = 0; slot < kSlots; ++slot) {
      for (float& x : head) x = normal(rng);
      REQUIRE(active_kernels().attention->store_key(at(slot), head.data()));
      REQUIRE(active_kernels().attention->store_value(at(slot), head.data()));
    }
  }
  KvSlot at(int slot) const {
    return kv.slot(pointers[static_cast<size_t>(slot / kPageTokens)], slot, 0);
  }
  bool keep(const std::vector<int32_t>& kept) {
    const KvTable table{pointers.data(), static_cast<int>(pointers.size())};
    return KvEditor(active_kernels(), 1).keep_slots({&table}, kv, 0, kept);
  }
  // Keys, then values.
  std::vector<std::vector<float>> content() const {
    std::vector<std::vector<float>> all;
    for (const auto load : {load_key, load_value}) {
      for (int slot = 0; slot < kSlots; ++slot) {
        all.emplace_back(kHeadDim);
        load(at(slot), all.back().data());
      }
    }
    return all;
  }

  KvLayerLayout kv;
  std::vector<std::vector<std::byte>> pages;
  std::vector<std::byte*> pointers;
};

}  // namespace

TEST_CASE("kept tokens read as before, in first pages of another format to half a step of f16") {
  std::vector<int32_t> kept = {0, 1, 5};
  for (int32_t slot = 30; slot < kSlots; slot += 1 + slot % 2) kept.push_back(slot);
  for (const KvFormatInfo& format : kKvFormats) {
    CAPTURE(format.name);
    Fixture f(format.format);
    const auto before = f.content();
    REQUIRE(f.keep(kept));
    const auto after = f.content();
    for (size_t i = 0; i < kept.size(); ++i) {
      CAPTURE(i);
      for (const size_t part : {size_t{0}, size_t{kSlots}}) {
        const std::vector<float>& was = before[part + static_cast<size_t>(kept[i])];
        for (size_t j = 0; j < kHeadDim; ++j) {
          const bool is_rounded =
              f.kv.has_own_first_pages() && i < kFirstTokens && kept[i] >= kFirstTokens;
          const float tolerance = is_rounded ? std::abs(was[j]) / 2048 : 0;
          CHECK(std::abs(after[part + i][j] - was[j]) <= tolerance);
        }
      }
    }
  }
}

TEST_CASE("what f16 cannot hold is refused when it comes to the first pages") {
  for (const float amax : {60000.0f, 70000.0f}) {
    Fixture f(KvFormat::kK8V4);
    const std::vector<float> value(kHeadDim, amax);
    REQUIRE(active_kernels().attention->store_value(f.at(50), value.data()));
    CHECK(f.keep({0, 50}) == (amax < 65520.0f));
  }
}

}  // namespace edge
