#include "base/race.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/exact_math.h"
#include "base/philox.h"
#include "doctest/doctest.h"

namespace edge {
namespace {

constexpr uint64_t kSeed = 3;

Runners runners_of(const std::vector<double>& weights, const std::vector<int32_t>& ids = {}) {
  return {
      .weights = weights, .ids = ids, .mass = std::accumulate(weights.begin(), weights.end(), 0.0)};
}

// Pearson's statistic of so many races against the weights, those below `floor` as one.
double chi_square(const std::vector<double>& weights, double floor, uint64_t n_races) {
  const Runners runners = runners_of(weights);
  std::vector<double> wins(weights.size());
  for (uint64_t step = 0; step < n_races; ++step) wins[race(runners, kSeed, step)] += 1;
  double statistic = 0;
  double rest_wins = 0;
  double rest_mean = 0;
  const auto add = [&](double n, double mean) {
    if (mean > 0) statistic += (n - mean) * (n - mean) / mean;
  };
  for (size_t i = 0; i < weights.size(); ++i) {
    const double mean = weights[i] / runners.mass * static_cast<double>(n_races);
    if (weights[i] >= floor) {
      add(wins[i], mean);
    } else {
      if (weights[i] == 0) CHECK(wins[i] == 0);
      rest_wins += wins[i];
      rest_mean += mean;
    }
  }
  add(rest_wins, rest_mean);
  return statistic;
}

std::vector<double> softmax_weights(size_t n, double scale, uint64_t stream) {
  std::vector<double> logits(n);
  for (size_t i = 0; i < n; ++i) {
    logits[i] = scale * -log_positive(1 - uniform_draw(stream, i, 7));
  }
  const double most = *std::max_element(logits.begin(), logits.end());
  for (double& x : logits) x = exp_nonpositive(x - most);
  return logits;
}

}  // namespace

// 0.999 quantiles of chi-square with k - 1 degrees of freedom.
TEST_CASE("each wins as often as it weighs") {
  CHECK(chi_square({1, 0.6, 0.3, 0, 0.1}, 0, 100000) < 16.3);
  // Half of them too light to run alone, which together win a third.
  std::vector<double> light(4096, 0x1p-13);
  light[0] = 1;
  CHECK(chi_square(light, 0x1p-12, 20000) < 10.9);
  // Too many of the same: one number chooses among all.
  CHECK(chi_square(std::vector<double>(600, 1), 0, 30000) < 712.0);
  // Too many for the first floor: those between it and the next one run as one.
  std::vector<double> many(700, 0x1p-9);
  many[5] = 1;
  many[699] = 0.5;
  CHECK(chi_square(many, 0x1p-8, 20000) < 13.9);
}

TEST_CASE("who wins among the light ones is as likely as it weighs") {
  std::vector<double> weights(600, 0);
  for (size_t i = 0; i < 4; ++i) weights[100 + i] = static_cast<double>(i + 1) * 0x1p-16;
  weights[7] = 0x1p-15;
  CHECK(chi_square(weights, 0, 30000) < 18.5);
}

TEST_CASE("the order of the runners changes nothing for those who run alone") {
  const std::vector<double> weights{1, 0.5, 0.25, 0.125};
  const std::vector<double> turned{0.25, 0.125, 1, 0.5};
  const std::vector<int32_t> ids{2, 3, 0, 1};
  for (uint64_t step = 0; step < 1000; ++step) {
    const size_t other = race(runners_of(turned, ids), kSeed, step);
    CHECK(race(runners_of(weights), kSeed, step) == static_cast<size_t>(ids[other]));
  }
}

TEST_CASE("similar weights mostly have the same winner; seeds and steps have their own") {
  const std::vector<double> p = softmax_weights(200, 1.0, 1);
  std::vector<double> q = p;
  for (size_t i = 0; i < q.size(); ++i) q[i] *= i % 2 == 0 ? 0.8 : 1.0;
  int n_same = 0;
  int n_other_seed = 0;
  for (uint64_t step = 0; step < 2000; ++step) {
    const size_t winner = race(runners_of(p), kSeed, step);
    n_same += winner == race(runners_of(q), kSeed, step) ? 1 : 0;
    n_other_seed += winner == race(runners_of(p), kSeed + 1, step) ? 1 : 0;
  }
  CHECK(n_same > 1700);
  CHECK(n_other_seed < 1000);
}

TEST_CASE("favourites: the winner of these weights first, by what they say of others' winners") {
  const std::vector<double> q = softmax_weights(300, 1.3, 2);
  double said = 0;
  int n_first = 0;
  constexpr uint64_t kRaces = 1000;
  for (uint64_t step = 0; step < kRaces; ++step) {
    // Others' logits are off by noise of their own.
    std::vector<double> p = q;
    for (size_t i = 0; i < p.size(); ++i) {
      p[i] *= std::exp(1.2 * (uniform_draw(step, i, 9) + uniform_draw(step, i, 10) - 1.0));
    }
    const double most = *std::max_element(p.begin(), p.end());
    for (double& x : p) x /= most;
    const std::vector<Favourite> found = favourites(runners_of(q), kSeed, step, 3);
    REQUIRE(found.size() == 3);
    CHECK(found[0].at == race(runners_of(q), kSeed, step));
    CHECK(found[0].probability >= found[1].probability);
    CHECK(found[1].probability >= found[2].probability);
    said += found[0].probability;
    n_first += found[0].at == race(runners_of(p), kSeed, step) ? 1 : 0;
  }
  CHECK(said / kRaces > 0.4);
  CHECK(n_first / static_cast<double>(kRaces) > said / kRaces - 0.1);
}

TEST_CASE("favourites of nothing that runs alone: none") {
  CHECK(favourites(runners_of(std::vector<double>(1000, 1)), kSeed, 0, 3).empty());
  CHECK(favourites(runners_of({1}), kSeed, 0, 3).size() == 1);
}

}  // namespace edge
