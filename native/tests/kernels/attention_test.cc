// Attention kernels: every ISA equals scalar, a query's bits do not depend on its company, stale
// bytes beyond what a query sees do not matter, and the whole is softmax(q K) V.
#include "kernels/attention.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/half.h"
#include "doctest/doctest.h"
#include "kernels/kernels.h"

namespace edge {
namespace {

constexpr int kPage = 32;

struct Pages {
  int head_dim;
  std::vector<std::vector<uint8_t>> bytes;
  std::vector<const uint8_t*> pointers;

  Pages(int head_dim_, int n_positions, uint32_t seed, uint16_t stale) : head_dim(head_dim_) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    for (int page = 0; page * kPage < n_positions; ++page) {
      std::vector<uint16_t> halves(static_cast<size_t>(2 * kPage * head_dim), stale);
      for (int t = 0; t < kPage && page * kPage + t < n_positions; ++t) {
        for (int i = 0; i < head_dim; ++i) {
          halves[static_cast<size_t>(i * kPage + t)] = float_to_half(normal(rng));
          halves[static_cast<size_t>(kPage * head_dim + t * head_dim + i)] =
              float_to_half(normal(rng));
        }
      }
      bytes.emplace_back(halves.size() * 2);
      std::memcpy(bytes.back().data(), halves.data(), bytes.back().size());
    }
    for (const auto& page : bytes) pointers.push_back(page.data());
  }

  // Key and value of a position become NaN.
  void make_stale(int position) {
    std::vector<uint8_t>& page = bytes[static_cast<size_t>(position / kPage)];
    const uint16_t nan = 0x7e00;
    for (int i = 0; i < head_dim; ++i) {
      const int key = i * kPage + position % kPage;
      const int value = kPage * head_dim + position % kPage * head_dim + i;
      std::memcpy(page.data() + 2 * key, &nan, 2);
      std::memcpy(page.data() + 2 * value, &nan, 2);
    }
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
  std::normal_distribution<float> normal;
  std::vector<float> q(static_cast<size_t>(head_dim));
  for (float& value : q) value = normal(rng);
  return q;
}

struct Mask {
  int first = 0;
  float softcap = 0;
};

std::vector<Answer> attend(Isa isa, const Pages& pages, const std::vector<std::vector<float>>& q,
                           const std::vector<int>& n_visible, Mask mask = {}) {
  AttentionSegmentArgs args;
  args.pages = pages.pointers.data();
  args.value_offset = static_cast<size_t>(kPage * pages.head_dim) * 2;
  args.head_dim = pages.head_dim;
  args.scale = 1.0f / std::sqrt(static_cast<float>(pages.head_dim));
  args.first = mask.first;
  args.softcap = mask.softcap;
  args.n_queries = static_cast<int>(q.size());
  std::vector<Answer> answers(q.size());
  for (size_t i = 0; i < q.size(); ++i) {
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
  for (const int head_dim : {8, 16, 20, 64, 80, 128}) {
    const Pages pages(head_dim, 250, 3, float_to_half(1.0f));
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

TEST_CASE("windows and caps have the same bits on every instruction set, alone and in company") {
  for (const int head_dim : {20, 64}) {
    const Pages pages(head_dim, 250, 3, 0x7e00);
    std::vector<std::vector<float>> q;
    for (uint32_t i = 0; i < 4; ++i) q.push_back(make_query(head_dim, i));
    const std::vector<int> seen = {250, 201, 215, 249};
    for (const Mask mask :
         {Mask{1, 0}, Mask{15, 3.0f}, Mask{16, 0}, Mask{96, 0}, Mask{200, 1.5f}, Mask{0, 3.0f}}) {
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

TEST_CASE("what lies before a window is not touched") {
  const Pages clean(64, 100, 3, 0);
  Pages stale(64, 100, 3, 0);
  for (int t = 0; t < 41; ++t) stale.make_stale(t);
  const auto q = make_query(64, 1);
  for (const Isa isa : supported_isas()) {
    const Answer expected = attend(isa, clean, {q}, {97}, {41, 0}).front();
    CHECK(attend(isa, stale, {q}, {97}, {41, 0}).front() == expected);
    CHECK_FALSE(attend(isa, clean, {q}, {97}, {40, 0}).front() == expected);
  }
}

TEST_CASE("stale bytes beyond the visible positions cannot change a bit") {
  const Pages clean(64, 40, 3, 0);
  const Pages stale(64, 40, 3, 0x7e00);  // NaN everywhere else
  const auto q = make_query(64, 1);
  for (const Isa isa : supported_isas()) {
    CHECK(attend(isa, clean, {q}, {37}).front() == attend(isa, stale, {q}, {37}).front());
  }
}

TEST_CASE("segments merge to the softmax over all positions") {
  const int head_dim = 64;
  const Pages first(head_dim, 256, 3, 0), second(head_dim, 100, 4, 0);
  const auto q = make_query(head_dim, 7);
  const AttentionKernels& kernels = *kernel_table(Isa::kScalar).attention;
  Answer all = attend(Isa::kScalar, first, {q}, {256}).front();
  const Answer rest = attend(Isa::kScalar, second, {q}, {100}).front();
  kernels.merge(&all.m, &all.l, all.o.data(), rest.m, rest.l, rest.o.data(), head_dim);
  kernels.finish(all.o.data(), all.l, head_dim, all.o.data());

  std::vector<double> score, expected(static_cast<size_t>(head_dim), 0.0);
  double total = 0;
  const auto half_at = [&](const Pages& pages, int t, size_t at) {
    uint16_t half;
    std::memcpy(&half, pages.pointers[static_cast<size_t>(t / kPage)] + 2 * at, 2);
    return static_cast<double>(half_to_float(half));
  };
  const auto add_positions = [&](const Pages& pages, int n) {
    for (int t = 0; t < n; ++t) {
      double s = 0;
      for (int i = 0; i < head_dim; ++i) {
        s += static_cast<double>(q[static_cast<size_t>(i)]) *
             half_at(pages, t, static_cast<size_t>(i * kPage + t % kPage));
      }
      const double p = std::exp(s / std::sqrt(64.0));
      total += p;
      for (int i = 0; i < head_dim; ++i) {
        expected[static_cast<size_t>(i)] +=
            p * half_at(pages, t, static_cast<size_t>(kPage * head_dim + t % kPage * head_dim + i));
      }
    }
  };
  add_positions(first, 256);
  add_positions(second, 100);
  for (size_t i = 0; i < expected.size(); ++i) {
    CHECK(std::abs(static_cast<double>(all.o[i]) - expected[i] / total) < 1e-5);
  }
}

}  // namespace
}  // namespace edge
