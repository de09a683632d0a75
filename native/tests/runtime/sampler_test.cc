#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "base/exact_math.h"
#include "base/philox.h"
#include "doctest/doctest.h"
#include "hash_model.h"
#include "runtime/best_candidates.h"

namespace edge {
namespace {

// The logits of given probabilities.
std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

std::set<int32_t> ids_seen(const std::vector<float>& logits, const SamplerParams& params,
                           uint64_t n_draws = 4000) {
  std::set<int32_t> seen;
  for (uint64_t step = 0; step < n_draws; ++step) {
    seen.insert(sample(logits, params, step).value().id);
  }
  return seen;
}

// Pearson's statistic of n_draws samples against expected probabilities.
double chi_square(const std::vector<float>& logits, const SamplerParams& params,
                  const std::vector<double>& expected, uint64_t n_draws) {
  std::vector<double> counts(expected.size());
  for (uint64_t step = 0; step < n_draws; ++step) {
    counts[static_cast<size_t>(sample(logits, params, step).value().id)] += 1;
  }
  double statistic = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double mean = expected[i] * static_cast<double>(n_draws);
    if (mean > 0) {
      statistic += (counts[i] - mean) * (counts[i] - mean) / mean;
    } else {
      CHECK(counts[i] == 0);
    }
  }
  return statistic;
}

TEST_CASE("only allowed ids are chosen, with the logprob of the model itself") {
  const std::vector<float> logits = logits_of({0.5, 0.3, 0.15, 0.05});
  const std::vector<uint32_t> last_two{0b1100};
  const auto one = [&](const SamplerParams& params, uint64_t step, const LogitRuleParams* rules) {
    return sample(logits, params, step, rules, {}, last_two).value();
  };
  CHECK(one({}, 0, nullptr).id == 2);
  CHECK(one({}, 0, nullptr).logprob == doctest::Approx(std::log(0.15)).epsilon(1e-6));
  std::set<int32_t> seen;
  for (uint64_t step = 0; step < 400; ++step) {
    seen.insert(one({.temperature = 1, .top_k = 3}, step, nullptr).id);
  }
  CHECK(seen == std::set<int32_t>{2, 3});
  const LogitRuleParams ban{.logit_bias = {{2, -std::numeric_limits<double>::infinity()}}};
  CHECK(one({.temperature = 1}, 5, &ban).id == 3);
}

TEST_CASE("the allowed ids of a vocabulary that fills no word; bits past its end mean nothing") {
  const std::vector<float> logits(33, 0.0f);
  const auto with = [&](uint32_t last) {
    return sample(logits, {}, 0, nullptr, {}, std::vector<uint32_t>{0, last});
  };
  CHECK(with(0xFFFFFFFF).value().id == 32);
  CHECK(with(0xFFFFFFFE).status().code() == Code::kInvalidArgument);
}

TEST_CASE("allowed ids: none left, and too few or too many words, are refused") {
  const std::vector<float> logits(64, 0.0f);
  const auto refused = [&](const std::vector<uint32_t>& words, const LogitRuleParams* rules) {
    return sample(logits, {}, 0, rules, {}, words).status().code() == Code::kInvalidArgument;
  };
  CHECK(refused({1}, nullptr));
  CHECK(refused({1, 1, 1}, nullptr));
  CHECK(refused({0, 0}, nullptr));
  const LogitRuleParams ban{.logit_bias = {{3, -std::numeric_limits<double>::infinity()}}};
  CHECK(refused({8, 0}, &ban));
  CHECK_FALSE(refused({8, 0}, nullptr));
}

}  // namespace

TEST_CASE("Philox4x32-10 gives the known answers of its authors") {
  using Words = std::array<uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("exp and log agree with the C library to 14 digits") {
  for (double x = 0; x > -699; x -= 0.0371) {
    CHECK(exp_nonpositive(x) == doctest::Approx(std::exp(x)).epsilon(1e-14));
  }
  CHECK(exp_nonpositive(0) == 1);
  CHECK(exp_nonpositive(-1e300) == 0);
  for (double x = 1e-300; x < 1e300; x *= 1.37) {
    CHECK(log_positive(x) == doctest::Approx(std::log(x)).epsilon(1e-14));
  }
  CHECK(log_positive(1) == 0);
}

TEST_CASE("greedy takes the largest logit and the lower id of equal ones") {
  const std::vector<float> logits = {-1, 3, 2, 3, 3};
  const SampledToken token = sample(logits, {}, 7).value();
  CHECK(token.id == 1);
  double mass = 0;
  for (const float x : logits) mass += std::exp(static_cast<double>(x));
  CHECK(token.logprob == doctest::Approx(3 - std::log(mass)));
}

TEST_CASE("greedy looks at no filter and no seed") {
  const std::vector<float> logits = {1, 2, 0.5f};
  const SamplerParams odd{.top_k = 1, .top_p = 0.01, .min_p = 1, .seed = 99};
  CHECK(sample(logits, odd, 3).value().id == sample(logits, {}, 0).value().id);
}

TEST_CASE("top_k keeps exactly k, equal logits by ascending id") {
  const std::vector<float> logits = {0, 1, 1, 1, 0.9f, 0.9f};
  CHECK(ids_seen(logits, {.temperature = 1, .top_k = 1}) == std::set<int32_t>{1});
  CHECK(ids_seen(logits, {.temperature = 1, .top_k = 2}) == std::set<int32_t>{1, 2});
  CHECK(ids_seen(logits, {.temperature = 1, .top_k = 4}) == std::set<int32_t>{1, 2, 3, 4});
  CHECK(ids_seen(logits, {.temperature = 1, .top_k = 1000}).size() == 6);
}

TEST_CASE("top_p keeps the fewest of the best that reach it") {
  const std::vector<float> logits = logits_of({0.05, 0.5, 0.3, 0.15});
  const auto seen = [&](double top_p) {
    return ids_seen(logits, {.temperature = 1, .top_p = top_p});
  };
  CHECK(seen(0.0001) == std::set<int32_t>{1});
  CHECK(seen(0.499) == std::set<int32_t>{1});
  CHECK(seen(0.501) == std::set<int32_t>{1, 2});
  CHECK(seen(0.799) == std::set<int32_t>{1, 2});
  CHECK(seen(0.801) == std::set<int32_t>{1, 2, 3});
  CHECK(seen(0.951) == std::set<int32_t>{0, 1, 2, 3});
  CHECK(seen(1.0) == std::set<int32_t>{0, 1, 2, 3});
}

TEST_CASE("top_p takes its share of what top_k left") {
  const std::vector<float> logits = logits_of({0.5, 0.3, 0.2});
  // Of the best two, the first has 0.5 / 0.8 = 0.625.
  CHECK(ids_seen(logits, {.temperature = 1, .top_k = 2, .top_p = 0.62}) == std::set<int32_t>{0});
  CHECK(ids_seen(logits, {.temperature = 1, .top_k = 2, .top_p = 0.63}) == std::set<int32_t>{0, 1});
}

TEST_CASE("min_p compares with the best token after temperature") {
  const std::vector<float> logits = logits_of({0.5, 0.26, 0.14, 0.1});
  CHECK(ids_seen(logits, {.temperature = 1, .min_p = 0.5}) == std::set<int32_t>{0, 1});
  CHECK(ids_seen(logits, {.temperature = 1, .min_p = 0.27}) == std::set<int32_t>{0, 1, 2});
  // At temperature 0.5 the ratios are squared: 0.26 / 0.5 becomes 0.27.
  CHECK(ids_seen(logits, {.temperature = 0.5, .min_p = 0.28}) == std::set<int32_t>{0});
  CHECK(ids_seen(logits, {.temperature = 1, .min_p = 1}) == std::set<int32_t>{0});
  const std::vector<float> equal = {2, 2, 1};
  CHECK(ids_seen(equal, {.temperature = 1, .min_p = 1}) == std::set<int32_t>{0, 1});
}

TEST_CASE("draws follow the softmax (chi-square, 9 degrees of freedom, p = 0.001 at 27.9)") {
  std::vector<double> expected = {0.3, 0.2, 0.15, 0.1, 0.08, 0.07, 0.05, 0.03, 0.015, 0.005};
  const std::vector<float> logits = logits_of(expected);
  for (const uint64_t seed : {0ull, 1ull, 0xFFFFFFFFFFFFFFFFull}) {
    CHECK(chi_square(logits, {.temperature = 1, .seed = seed}, expected, 20'000) < 27.9);
  }
  double mass = 0;
  for (double& p : expected) mass += p = p * p;
  for (double& p : expected) p /= mass;
  CHECK(chi_square(logits, {.temperature = 0.5, .seed = 5}, expected, 20'000) < 27.9);
  // The test itself sees a bias of a few percent.
  CHECK(chi_square(logits, {.temperature = 0.55, .seed = 5}, expected, 20'000) > 27.9);
}

TEST_CASE("draws follow the renormalised rest after filters (3 degrees of freedom, 16.3)") {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.05, 0.2, 0.25});
  const std::vector<double> expected = {0.1 / 0.95, 0.4 / 0.95, 0, 0.2 / 0.95, 0.25 / 0.95};
  CHECK(chi_square(logits, {.temperature = 1, .top_k = 4, .seed = 3}, expected, 20'000) < 16.3);
  CHECK(chi_square(logits, {.temperature = 1, .top_p = 0.94, .seed = 4}, expected, 20'000) < 16.3);
  CHECK(chi_square(logits, {.temperature = 1, .min_p = 0.2, .seed = 6}, expected, 20'000) < 16.3);
}

TEST_CASE("the same seed and step give the same token, others other ones") {
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 7);
  const auto tokens = [&](uint64_t seed) {
    std::vector<int32_t> ids;
    for (uint64_t step = 0; step < 50; ++step) {
      ids.push_back(sample(logits, {.temperature = 1, .seed = seed}, step).value().id);
    }
    return ids;
  };
  const std::vector<int32_t> ids = tokens(1);
  CHECK(ids == tokens(1));
  CHECK(ids != tokens(2));
  CHECK(std::set<int32_t>(ids.begin(), ids.end()).size() > 1);
}

TEST_CASE("draws follow XTC, whose coin is not that of the draw (3 degrees of freedom, 16.3)") {
  const std::vector<double> shares = {0.4, 0.1, 0.3, 0.2};
  const std::vector<float> logits = logits_of(shares);
  const std::vector<double> excluded = {0, 1.0 / 3, 0, 2.0 / 3};
  std::vector<double> expected(4);
  for (size_t i = 0; i < 4; ++i) expected[i] = 0.7 * shares[i] + 0.3 * excluded[i];
  const auto with = [](double probability, uint64_t seed) {
    return SamplerParams{
        .temperature = 1, .xtc_probability = probability, .xtc_threshold = 0.15, .seed = seed};
  };
  CHECK(chi_square(logits, with(0.3, 9), expected, 20'000) < 16.3);
  CHECK(chi_square(logits, with(0.3, 10), expected, 20'000) < 16.3);
  CHECK(chi_square(logits, with(0.4, 9), expected, 20'000) > 16.3);
  CHECK(chi_square(logits, with(0, 9), shares, 20'000) < 16.3);
  CHECK(ids_seen(logits, with(1, 9)) == std::set<int32_t>{1, 3});
}

TEST_CASE("typical_p draws from what is nearest to the entropy (1 degree of freedom, 10.8)") {
  const std::vector<float> logits = logits_of({0.5, 0.25, 0.125, 0.125});
  const SamplerParams params{.temperature = 1, .typical_p = 0.7, .seed = 2};
  CHECK(chi_square(logits, params, {2.0 / 3, 1.0 / 3, 0, 0}, 20'000) < 10.8);
}

TEST_CASE("what distribution() lists is what sample() draws") {
  std::vector<float> logits(60);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>((i * 29) % 31) * 0.2f;
  const LogitRuleParams rules{.repetition_penalty = 1.5};
  const std::vector<int32_t> history = {1, 5, 9};
  const SamplerParams params{.temperature = 0.9, .top_k = 12, .typical_p = 0.8, .seed = 4};
  std::set<int32_t> listed;
  double mass = 0;
  const std::vector<TokenShare> shares =
      distribution(logits, params, 0, &rules, {history, 3}).take();
  for (const TokenShare& share : shares) {
    listed.insert(share.id);
    mass += share.probability;
  }
  CHECK(mass == doctest::Approx(1));
  std::set<int32_t> seen;
  for (uint64_t step = 0; step < 4000; ++step) {
    seen.insert(sample(logits, params, step, &rules, {history, 3}).value().id);
  }
  CHECK(seen == listed);
}

TEST_CASE("greedy follows the rules, and the log probability stays that of the raw logits") {
  const std::vector<float> logits = {1, 3, 2};
  const LogitRuleParams rules{.logit_bias = {{0, 10.0}}};
  const SampledToken token = sample(logits, {}, 0, &rules).value();
  CHECK(token.id == 0);
  CHECK(token.logprob == top_logprobs(logits, 3).value()[2].logprob);
}

TEST_CASE("top_logprobs are in order, equal ones by id, and at most as many as there are") {
  const std::vector<float> logits = {1, 3, 2, 3};
  const std::vector<SampledToken> best = top_logprobs(logits, 3).value();
  CHECK(best.size() == 3);
  CHECK(best[0].id == 1);
  CHECK(best[1].id == 3);
  CHECK(best[2].id == 2);
  CHECK(best[0].logprob == sample(logits, {}, 0).value().logprob);
  CHECK(top_logprobs(logits, 0).value().empty());
  CHECK(top_logprobs(logits, 5).status().message().starts_with("logprobs is 5"));
  CHECK(top_logprobs(logits, -1).status().code() == Code::kInvalidArgument);
}

TEST_CASE("a rule out of range is refused by name") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::pair<LogitRuleParams, std::string>> cases = {
      {{.repetition_penalty = 0}, "repetition_penalty"},
      {{.repetition_penalty = nan}, "repetition_penalty"},
      {{.penalty_window = -1}, "penalty_window"},
      {{.presence_penalty = 2.1}, "presence_penalty"},
      {{.presence_penalty = nan}, "presence_penalty"},
      {{.frequency_penalty = -2.1}, "frequency_penalty"},
      {{.dry_multiplier = -1}, "dry_multiplier"},
      {{.dry_base = 0.5}, "dry_base"},
      {{.dry_allowed_length = 0}, "dry_allowed_length"},
      {{.dry_range = -1}, "dry_range"},
      {{.dry_breakers = {{1}, {}}}, "dry_breakers[1]"},
      {{.dry_breakers = {{2}, {1}}}, "dry_breakers[1]"},
      {{.logit_bias = {{7, nan}}}, "logit_bias of id 7"},
      {{.logit_bias = {{7, std::numeric_limits<double>::infinity()}}}, "logit_bias of id 7"},
      {{.min_tokens = -1}, "min_tokens"},
  };
  for (const auto& [rules, name] : cases) {
    CHECK(rules.check().code() == Code::kInvalidArgument);
    CHECK(rules.check().message().starts_with(name));
  }
  CHECK(LogitRuleParams{}.check().is_ok());
  CHECK(LogitRuleParams{}.is_off());
}

// Pinned: another result here means that "same seed, same tokens" broke between versions.
TEST_CASE("the stream of seed 42 is what it always was") {
  std::vector<float> logits(100);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>((i * 37) % 100) * 0.05f;
  }
  std::vector<int32_t> ids;
  for (uint64_t step = 0; step < 8; ++step) {
    ids.push_back(sample(logits, {.temperature = 0.8, .top_p = 0.9, .seed = 42}, step).value().id);
  }
  CHECK(ids == std::vector<int32_t>{81, 62, 62, 91, 97, 75, 97, 54});
}

TEST_CASE("an extreme temperature neither overflows nor divides by zero") {
  const std::vector<float> logits = {-3e38f, 3e38f, 0};
  CHECK(sample(logits, {.temperature = 1e-6}, 1).value().id == 1);
  CHECK(sample(logits, {.temperature = 100}, 1).value().id == 1);
  CHECK(std::isfinite(sample(logits, {.temperature = 100}, 1).value().logprob));
  const std::vector<float> one = {-5};
  CHECK(sample(one, {.temperature = 1, .top_k = 3, .top_p = 0.5}, 1).value().id == 0);
}

TEST_CASE("logits that are not finite are a numeric error naming the first") {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {inf, -inf, std::numeric_limits<float>::quiet_NaN()}) {
    const std::vector<float> logits = {0, 1, bad, bad};
    const Status status = sample(logits, {}, 0).status();
    CHECK(status.code() == Code::kNumeric);
    CHECK(status.message().find("2 of 4") != std::string::npos);
    CHECK(status.message().find("id 2") != std::string::npos);
  }
  CHECK(sample({}, {}, 0).status().code() == Code::kInvalidArgument);
}

TEST_CASE("the likeliest tokens give the token and the logprob that all logits give") {
  std::vector<float> logits;
  for (int i = 0; i < 500; ++i) logits.push_back(static_cast<float>(i * 7919 % 131) * 0.05f);
  const TopTokens top = test::top_of(logits);
  REQUIRE(top.n == kMostTopTokens);
  const std::vector<SamplerParams> enough = {
      {},
      {.temperature = 1, .top_k = 64},
      {.temperature = 1.3, .top_k = 1},
      {.temperature = 0.7, .top_k = 40, .top_p = 0.6, .min_p = 0.1},
      {.temperature = 2, .top_k = 50, .typical_p = 0.7},
      {.temperature = 1, .top_k = 30, .xtc_probability = 0.5, .xtc_threshold = 0.01},
  };
  for (const SamplerParams& params : enough) {
    REQUIRE(are_top_enough(params, nullptr, {}));
    for (uint64_t step = 0; step < 200; ++step) {
      const SampledToken wanted = sample(logits, params, step).value();
      const SampledToken found = sample_top(top, params, step).value();
      REQUIRE(found.id == wanted.id);
      REQUIRE(found.logprob == wanted.logprob);
    }
  }
  const auto wanted = top_logprobs(logits, 20).value();
  const auto found = logprobs_of(top, 20);
  for (size_t i = 0; i < 20; ++i) {
    CHECK(found[i].id == wanted[i].id);
    CHECK(found[i].logprob == wanted[i].logprob);
  }
  CHECK_FALSE(are_top_enough({.temperature = 1}, nullptr, {}));
  CHECK_FALSE(are_top_enough({.temperature = 1, .top_k = 65}, nullptr, {}));
  CHECK_FALSE(are_top_enough({.temperature = 1, .top_p = 0.9}, nullptr, {}));
  const LogitRuleParams rules{.repetition_penalty = 1.1};
  CHECK_FALSE(are_top_enough({}, &rules, {}));
  CHECK_FALSE(are_top_enough({}, nullptr, std::vector<uint32_t>(16)));
  CHECK(sample_top(top, {.top_p = 2}, 0).status().code() == Code::kInvalidArgument);
}

// By a sort of all of them.
std::vector<Candidate> sorted_until(const std::vector<float>& logits,
                                    const std::vector<double>& weights, const Cut& cut) {
  std::vector<Candidate> all;
  for (size_t i = 0; i < logits.size(); ++i) {
    all.push_back({logits[i], static_cast<int32_t>(i), weights[i]});
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  double sum = 0;
  size_t n = 0;
  for (; n < all.size() && n < cut.n_most; sum += all[n++].weight) {
    if (n > 0 && (sum >= cut.mass || all[n].weight < cut.min_weight)) break;
  }
  all.resize(n);
  return all;
}

TEST_CASE("the best candidates of flat, steep and equal logits are those of a sort") {
  constexpr double kAny = std::numeric_limits<double>::infinity();
  constexpr size_t kAll = 1000;
  for (const float width : {0.0f, 0.01f, 0.5f, 3.0f, 40.0f, 2000.0f}) {
    std::vector<float> logits(kAll);
    std::vector<double> weights(kAll);
    for (size_t i = 0; i < kAll; ++i) {
      const auto words = philox4x32({static_cast<uint32_t>(i), 0, 0, 0}, {1, 2});
      // Some are equal, and some are 0 with a sign.
      logits[i] = width * static_cast<float>(static_cast<int>(words[0] % 701) - 700) / 700.0f;
      if (i % 7 == 0 && logits[i] == 0) logits[i] = -0.0f;
    }
    const float max = *std::max_element(logits.begin(), logits.end());
    double mass = 0;
    for (size_t i = 0; i < kAll; ++i) {
      weights[i] = exp_nonpositive(static_cast<double>(logits[i]) - static_cast<double>(max));
      mass += weights[i];
    }
    for (const size_t n_most : {size_t{1}, size_t{40}, size_t{999}, kAll}) {
      for (const double min_weight : {0.0, 1e-12, 0.004, 0.05, 1.0}) {
        for (const double share : {1e-9, 0.1, 0.5, 0.95, 1.0, kAny}) {
          const Cut cut{n_most, min_weight, share * mass};
          const auto wanted = sorted_until(logits, weights, cut);
          const auto found = best_candidates(logits, weights, cut);
          REQUIRE(std::ranges::equal(found, wanted, [](const Candidate& a, const Candidate& b) {
            return a.id == b.id && a.logit == b.logit && a.weight == b.weight;
          }));
        }
      }
    }
  }
}

TEST_CASE("as many logprobs as anyone asks for are those of a sort") {
  std::vector<float> logits;
  for (int i = 0; i < 500; ++i) logits.push_back(static_cast<float>(i * 7919 % 131) * 0.05f);
  const auto all = top_logprobs(logits, 500).value();
  for (const int64_t k : {1, 5, 64, 65, 499}) {
    const auto some = top_logprobs(logits, k).value();
    REQUIRE(some.size() == static_cast<size_t>(k));
    for (size_t i = 0; i < some.size(); ++i) CHECK(some[i].id == all[i].id);
  }
  for (size_t i = 1; i < all.size(); ++i) {
    const float before = logits[static_cast<size_t>(all[i - 1].id)];
    const float here = logits[static_cast<size_t>(all[i].id)];
    CHECK((before > here || (before == here && all[i - 1].id < all[i].id)));
  }
}

TEST_CASE("a parameter out of range is refused by name") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::pair<SamplerParams, std::string>> cases = {
      {{.temperature = -0.1}, "temperature"},
      {{.temperature = nan}, "temperature"},
      {{.temperature = 101}, "temperature"},
      {{.temperature = 1e-9}, "temperature"},
      {{.top_k = -1}, "top_k"},
      {{.top_p = 0}, "top_p"},
      {{.top_p = 1.01}, "top_p"},
      {{.top_p = nan}, "top_p"},
      {{.min_p = -0.01}, "min_p"},
      {{.min_p = 1.01}, "min_p"},
      {{.min_p = nan}, "min_p"},
      {{.typical_p = 0}, "typical_p"},
      {{.typical_p = nan}, "typical_p"},
      {{.xtc_probability = 1.01}, "xtc_probability"},
      {{.xtc_probability = nan}, "xtc_probability"},
      {{.xtc_threshold = 0}, "xtc_threshold"},
      {{.xtc_threshold = 0.51}, "xtc_threshold"},
  };
  for (const auto& [params, name] : cases) {
    const Status status = params.check();
    CHECK(status.code() == Code::kInvalidArgument);
    CHECK(status.message().starts_with(name));
    const std::vector<float> logits = {1};
    CHECK(sample(logits, params, 0).status().code() == Code::kInvalidArgument);
  }
  CHECK(SamplerParams{}.check().is_ok());
}

}  // namespace edge
