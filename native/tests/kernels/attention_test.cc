// Attention kernels: every ISA equals scalar, a query's bits do not depend on its company, stale
// bytes beyond what a query sees do not matter, and the whole is softmax(q K) V.
#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/kernels.h"
#include "kernels/kv_slot.h"

namespace edge {
namespace {

constexpr uint8_t kNan = 0x7e;  // twice, an f16

std::vector<float> random_head(std::mt19937& rng, int head_dim) {
  std::normal_distribution<float> normal;
  std::vector<float> head(static_cast<size_t>(head_dim));
  for (float& value : head) value = normal(rng);
  return head;
}

struct Pages {
  KvFormat format;
  int head_dim;
  std::vector<std::vector<uint8_t>> bytes;
  std::vector<const uint8_t*> pointers;

  Pages(KvFormat format_, int head_dim_, int n_positions, uint32_t seed, uint8_t stale)
      : format(format_), head_dim(head_dim_) {
    std::mt19937 rng(seed);
    for (int t = 0; t < n_positions; ++t) {
      if (t % kPageTokens == 0) bytes.emplace_back(kv_head_bytes(format, head_dim), stale);
      put(kernel_table(Isa::kScalar), t, random_head(rng, head_dim), random_head(rng, head_dim));
    }
    for (const auto& page : bytes) pointers.push_back(page.data());
  }

  KvSlot slot(int position) {
    return {.page = bytes[static_cast<size_t>(position / kPageTokens)].data(),
            .head = kv_head(format, head_dim),
            .slot = position % kPageTokens};
  }

  void put(const KernelTable& table, int position, const std::vector<float>& key,
           const std::vector<float>& value) {
    REQUIRE(table.attention->store_key(slot(position), key.data()));
    REQUIRE(table.attention->store_value(slot(position), value.data()));
  }

  // Key and value of a position become NaN: of integers their scales.
  void make_stale(int position) {
    const KvSlot at = slot(position);
    const auto put_nan = [&](size_t part, int i, int stride) {
      const uint16_t nan = 0x7e00;
      std::memcpy(at.page + part + 2 * static_cast<size_t>(i * stride + at.slot), &nan, 2);
    };
    if (format == KvFormat::kF16) {
      for (int i = 0; i < head_dim; ++i) {
        put_nan(at.head.keys, i, kPageTokens);
        put_nan(at.head.values, at.slot * (head_dim - 1) + i, 1);
      }
      return;
    }
    for (int i = 0; i < kv_n_scales(head_dim, at.head.key_bits); ++i) {
      put_nan(at.head.key_scales, i, kPageTokens);
    }
    for (int i = 0; i < kv_n_scales(head_dim, at.head.value_bits); ++i) {
      put_nan(at.head.value_scales, i, kPageTokens);
    }
  }

  std::vector<float> key(int position) {
    std::vector<float> key(static_cast<size_t>(head_dim));
    load_key(slot(position), key.data());
    return key;
  }
  std::vector<float> value(int position) {
    std::vector<float> value(static_cast<size_t>(head_dim));
    load_value(slot(position), value.data());
    return value;
  }
};

struct Answer {
  float m = 0, l = 0;
  std::vector<float> o;
  bool operator==(const Answer& other) const {
    return std::memcmp(&m, &other.m, 4) == 0 && std::memcmp(&l, &other.l, 4) == 0 &&
           std::memcmp(o.data(), other.o.data(), o.size() * 4) == 0;
  }
};

std::vector<float> make_query(int head_dim, uint32_t seed) {
  std::mt19937 rng(seed);
  return random_head(rng, head_dim);
}

struct Int8Query {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> sum;

  Int8Query(const KernelTable& table, const std::vector<float>& query)
      : q(query.size() + 4, 99), scale(query.size()), sum(query.size()) {
    const auto head_dim = static_cast<int>(query.size());
    REQUIRE(table.attention->quantize_query(query.data(), head_dim, kv_query_channels(head_dim),
                                            view()));
  }
  QueryInt8 view() { return {q.data(), scale.data(), sum.data()}; }
};

struct Mask {
  int first = 0;
  float softcap = 0;
};

std::vector<Answer> attend(Isa isa, const Pages& pages, const std::vector<std::vector<float>>& q,
                           const std::vector<int>& n_visible, Mask mask = {}) {
  AttentionSegmentArgs args;
  args.pages = pages.pointers.data();
  args.kv = kv_head(pages.format, pages.head_dim);
  args.scale = 1.0f / std::sqrt(static_cast<float>(pages.head_dim));
  args.first = mask.first;
  args.softcap = mask.softcap;
  args.n_queries = static_cast<int>(q.size());
  std::vector<Answer> answers(q.size());
  std::vector<Int8Query> q8;
  for (const std::vector<float>& query : q) q8.emplace_back(kernel_table(isa), query);
  for (size_t i = 0; i < q.size(); ++i) {
    args.q8[i] = q8[i].view();
    answers[i].o.resize(static_cast<size_t>(pages.head_dim));
    args.q[i] = q[i].data();
    args.n_visible[i] = n_visible[i];
    args.o[i] = answers[i].o.data();
  }
  kernel_table(isa).attention->segment(args);
  for (size_t i = 0; i < q.size(); ++i) {
    answers[i].m = args.m[i];
    answers[i].l = args.l[i];
  }
  return answers;
}

TEST_CASE("attention equals scalar on every instruction set, alone and in company") {
  for (const auto& kv : kKvFormats) {
    for (const int head_dim : {8, 16, 20, 64, 80, 128}) {
      const Pages pages(kv.format, head_dim, 250, 3, 0x3c);
      std::vector<std::vector<float>> q;
      for (uint32_t i = 0; i < 4; ++i) q.push_back(make_query(head_dim, i));
      for (const std::vector<int>& seen : {std::vector<int>{1, 2, 3, 4},
                                           {16, 17, 33, 1},
                                           {250, 249, 31, 32},
                                           {250, 250, 250, 250}}) {
        std::vector<Answer> alone;
        for (size_t i = 0; i < 4; ++i) {
          alone.push_back(attend(Isa::kScalar, pages, {q[i]}, {seen[i]}).front());
        }
        for (const Isa isa : supported_isas()) {
          CAPTURE(std::string(isa_name(isa)));
          CAPTURE(std::string(kv.name));
          CAPTURE(head_dim);
          for (size_t n = 1; n <= 4; ++n) {
            const auto together = attend(isa, pages, {q.begin(), q.begin() + static_cast<long>(n)},
                                         {seen.begin(), seen.begin() + static_cast<long>(n)});
            for (size_t i = 0; i < n; ++i) CHECK(together[i] == alone[i]);
          }
        }
      }
    }
  }
}

TEST_CASE("windows and caps have the same bits on every instruction set, alone and in company") {
  for (const auto& kv : kKvFormats) {
    for (const int head_dim : {20, 64}) {
      const Pages pages(kv.format, head_dim, 250, 3, kNan);
      std::vector<std::vector<float>> q;
      for (uint32_t i = 0; i < 4; ++i) q.push_back(make_query(head_dim, i));
      const std::vector<int> seen = {250, 201, 215, 249};
      for (const Mask mask :
           {Mask{1, 0}, Mask{15, 3.0f}, Mask{16, 0}, Mask{96, 0}, Mask{200, 1.5f}, Mask{0, 3.0f}}) {
        CAPTURE(std::string(kv.name));
        CAPTURE(head_dim);
        CAPTURE(mask.first);
        std::vector<Answer> alone;
        for (size_t i = 0; i < 4; ++i) {
          alone.push_back(attend(Isa::kScalar, pages, {q[i]}, {seen[i]}, mask).front());
        }
        for (const Isa isa : supported_isas()) {
          CAPTURE(std::string(isa_name(isa)));
          const auto together = attend(isa, pages, q, seen, mask);
          for (size_t i = 0; i < 4; ++i) CHECK(together[i] == alone[i]);
        }
      }
    }
  }
}

TEST_CASE("pages that no query sees need not be there") {
  for (const auto& kv : kKvFormats) {
    const Pages whole(kv.format, 20, 256, 3, 0);
    const std::vector<std::vector<float>> q = {make_query(20, 1), make_query(20, 2)};
    for (const auto& [first, end] : {std::pair{0, 1},
                                     {0, 16},
                                     {0, 17},
                                     {15, 33},
                                     {16, 17},
                                     {17, 80},
                                     {240, 241},
                                     {224, 256},
                                     {239, 256}}) {
      CAPTURE(first);
      CAPTURE(end);
      Pages parts = whole;
      parts.pointers.assign(whole.pointers.size(), nullptr);
      for (int page = first / kPageTokens; page <= (end - 1) / kPageTokens; ++page) {
        const auto at = static_cast<size_t>(page);
        parts.pointers[at] = parts.bytes[at].data();
      }
      for (const Isa isa : supported_isas()) {
        CHECK(attend(isa, parts, q, {end, end}, {first, 0}) ==
              attend(Isa::kScalar, whole, q, {end, end}, {first, 0}));
      }
    }
  }
}

TEST_CASE("what lies before a window is not touched") {
  for (const auto& kv : kKvFormats) {
    const Pages clean(kv.format, 64, 100, 3, 0);
    Pages stale(kv.format, 64, 100, 3, 0);
    for (int t = 0; t < 41; ++t) stale.make_stale(t);
    const auto q = make_query(64, 1);
    for (const Isa isa : supported_isas()) {
      const Answer expected = attend(isa, clean, {q}, {97}, {41, 0}).front();
      CHECK(attend(isa, stale, {q}, {97}, {41, 0}).front() == expected);
      CHECK_FALSE(attend(isa, clean, {q}, {97}, {40, 0}).front() == expected);
    }
  }
}

TEST_CASE("stale bytes beyond the visible positions cannot change a bit") {
  for (const auto& kv : kKvFormats) {
    const Pages clean(kv.format, 64, 40, 3, 0);
    const Pages stale(kv.format, 64, 40, 3, kNan);  // NaN everywhere else
    const auto q = make_query(64, 1);
    for (const Isa isa : supported_isas()) {
      CHECK(attend(isa, clean, {q}, {37}).front() == attend(isa, stale, {q}, {37}).front());
    }
  }
}

TEST_CASE("segments merge to the softmax over all positions") {
  const AttentionKernels& kernels = *kernel_table(Isa::kScalar).attention;
  for (const auto& kv : kKvFormats) {
    for (const int head_dim : {20, 64, 80}) {
      CAPTURE(std::string(kv.name));
      CAPTURE(head_dim);
      Pages first(kv.format, head_dim, 256, 3, 0), second(kv.format, head_dim, 100, 4, 0);
      std::vector<float> q = make_query(head_dim, 7);
      Answer all = attend(Isa::kScalar, first, {q}, {256}).front();
      const Answer rest = attend(Isa::kScalar, second, {q}, {100}).front();
      kernels.merge(&all.m, &all.l, all.o.data(), rest.m, rest.l, rest.o.data(), head_dim);
      kernels.finish(all.o.data(), all.l, head_dim, all.o.data());

      const auto dim = static_cast<size_t>(head_dim);
      if (kv.format != KvFormat::kF16) {  // the query as int8 keys meet it
        const Int8Query q8(kernel_table(Isa::kScalar), q);
        for (size_t i = 0; i < dim; ++i) {
          q[i] = static_cast<float>(q8.q[i]) *
                 q8.scale[i / static_cast<size_t>(kv_query_channels(head_dim))];
        }
      }
      std::vector<double> expected(dim, 0.0);
      double total = 0;
      const auto add_positions = [&](Pages& pages, int n) {
        for (int t = 0; t < n; ++t) {
          const std::vector<float> key = pages.key(t), value = pages.value(t);
          double s = 0;
          for (size_t i = 0; i < dim; ++i) {
            s += static_cast<double>(q[i]) * static_cast<double>(key[i]);
          }
          const double p = std::exp(s / std::sqrt(static_cast<double>(head_dim)));
          total += p;
          for (size_t i = 0; i < dim; ++i) expected[i] += p * static_cast<double>(value[i]);
        }
      };
      add_positions(first, 256);
      add_positions(second, 100);
      for (size_t i = 0; i < dim; ++i) {
        // int8 values meet weights of 15 bits
        const double tolerance = kv.format == KvFormat::kF16 ? 1e-5 : 1e-4;
        CHECK(std::abs(static_cast<double>(all.o[i]) - expected[i] / total) < tolerance);
      }
    }
  }
}

TEST_CASE("a token's key and value are stored with the same bytes on every instruction set") {
  for (const auto& kv : kKvFormats) {
    for (const int head_dim : {8, 16, 20, 65, 80, 128}) {
      CAPTURE(std::string(kv.name));
      CAPTURE(head_dim);
      std::mt19937 rng(5);
      std::vector<float> key = random_head(rng, head_dim), value = random_head(rng, head_dim);
      for (float& x : value) x *= 1e-7f;  // scales that are subnormal f16
      key[3] = 60000.0f;
      Pages expected(kv.format, head_dim, 32, 3, 0);
      expected.put(kernel_table(Isa::kScalar), 9, key, value);
      for (const Isa isa : supported_isas()) {
        CAPTURE(std::string(isa_name(isa)));
        Pages pages(kv.format, head_dim, 32, 3, 0);
        pages.put(kernel_table(isa), 9, key, value);
        CHECK(pages.bytes == expected.bytes);
        CHECK(Int8Query(kernel_table(isa), key).q == Int8Query(kernel_table(Isa::kScalar), key).q);
      }
    }
  }
}

TEST_CASE("what is stored is within half a step, and what no format holds is refused") {
  const AttentionKernels& kernels = *active_kernels().attention;
  for (const auto& kv : kKvFormats) {
    CAPTURE(std::string(kv.name));
    const int head_dim = 128;
    Pages pages(kv.format, head_dim, 1, 3, 0);
    std::mt19937 rng(6);
    std::vector<float> key = random_head(rng, head_dim), value = random_head(rng, head_dim);
    for (size_t i = 64; i < 128; ++i) key[i] *= 100;  // a group of its own
    pages.put(active_kernels(), 0, key, value);
    const auto is_near = [](const std::vector<float>& got, const std::vector<float>& want, int bits,
                            int channels) {
      const auto n = static_cast<size_t>(channels);
      for (size_t i = 0; i < got.size(); ++i) {
        const auto group = want.begin() + static_cast<long>(i / n * n);
        const float extreme = *std::max_element(
            group, group + channels, [](float a, float b) { return std::abs(a) < std::abs(b); });
        // Levels on the side of the extreme; four bits have one fewer on the other.
        const float n_levels = bits == 16 ? 1024 : std::ldexp(1.0f, bits - 1) - (bits == 4 ? 0 : 1);
        const float step = std::abs(extreme) / n_levels * 1.004f;  // rounded to f16
        const bool is_beyond = bits == 4 && want[i] * extreme < 0 && std::abs(want[i]) > 7 * step;
        if (!(std::abs(got[i] - want[i]) <= (is_beyond ? step : step / 2))) return false;
      }
      return true;
    };
    CHECK(is_near(pages.key(0), key, kv.key_bits, kv_scale_channels(head_dim, kv.key_bits)));
    CHECK(
        is_near(pages.value(0), value, kv.value_bits, kv_scale_channels(head_dim, kv.value_bits)));
    for (const float bad : {INFINITY, -INFINITY, NAN, 1e8f}) {
      key[77] = bad;
      CHECK_FALSE(kernels.store_key(pages.slot(0), key.data()));
      CHECK_FALSE(kernels.store_value(pages.slot(0), key.data()));
    }
    std::vector<int8_t> q(128);
    std::vector<float> scale(2);
    std::vector<int32_t> sum(2);
    key[77] = NAN;
    CHECK_FALSE(kernels.quantize_query(key.data(), 128, 64, {q.data(), scale.data(), sum.data()}));
  }
}

TEST_CASE("the heads of a page fill it without a gap, and none reaches into another") {
  constexpr int kHeads = 3;
  for (const auto& kv : kKvFormats) {
    for (const int head_dim : {8, 20, 64, 65, 80, 96, 128, 1024}) {
      CAPTURE(std::string(kv.name));
      CAPTURE(head_dim);
      std::vector<int> n_owners(7 + kHeads * kv_head_bytes(kv.format, head_dim));
      for (int index = 0; index < kHeads; ++index) {
        const KvHead head = kv_head(kv.format, head_dim, 7, index);
        const auto own = [&](size_t begin, size_t n_bytes) {
          for (size_t i = begin; i < begin + n_bytes; ++i) ++n_owners.at(i);
        };
        own(head.keys, kv_page_bytes(kv_key_bytes(head_dim, kv.key_bits)));
        own(head.values, kv_page_bytes(kv_value_bytes(head_dim, kv.value_bits)));
        own(head.key_scales, kv_scale_bytes(head_dim, kv.key_bits));
        own(head.value_scales, kv_scale_bytes(head_dim, kv.value_bits));
        const bool is_aligned = head_dim % 64 == 0;
        if (is_aligned) CHECK((head.keys - 7) % 64 == 0);
        if (is_aligned) CHECK((head.values - 7) % 64 == 0);
      }
      CHECK(std::all_of(n_owners.begin(), n_owners.begin() + 7, [](int n) { return n == 0; }));
      CHECK(std::all_of(n_owners.begin() + 7, n_owners.end(), [](int n) { return n == 1; }));
    }
  }
}

TEST_CASE("a token that is moved reads as before and leaves the others alone") {
  for (const auto& kv : kKvFormats) {
    for (const int head_dim : {8, 20, 64, 80}) {
      CAPTURE(std::string(kv.name));
      CAPTURE(head_dim);
      const Pages before(kv.format, head_dim, 64, 3, 0x55);
      Pages after = before;
      move_slot(after.slot(45), after.slot(2));
      for (int t = 0; t < 64; ++t) {
        CHECK(after.key(t) == Pages(before).key(t == 2 ? 45 : t));
        CHECK(after.value(t) == Pages(before).value(t == 2 ? 45 : t));
      }
    }
  }
}

}  // namespace
}  // namespace edge
