#include "base/race.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/exact_math.h"
#include "base/philox.h"

namespace edge {
namespace {

// Purposes of random draws; 0 is the choice among those who run as one.
constexpr uint32_t kRunner = 2;
constexpr uint32_t kField = 3;

// Who weighs at least so much runs for himself, by the first of these that not too many reach.
constexpr std::array<double, 4> kFloors = {0x1p-12, 0x1p-8, 0x1p-4, 1.0};

double exponential_draw(uint64_t seed, uint64_t step, uint32_t purpose, int32_t id = 0) {
  return -log_positive(1.0 - uniform_draw(seed, step, purpose, static_cast<uint32_t>(id)));
}

// Indices in the order given. Where there are too many even of the best, all run as one.
std::vector<size_t> who_run_alone(std::span<const double> weights) {
  std::vector<size_t> alone;
  for (const double floor : kFloors) {
    alone.clear();
    for (size_t i = 0; i < weights.size() && alone.size() <= kMostRunners; ++i) {
      if (weights[i] >= floor) alone.push_back(i);
    }
    if (alone.size() <= kMostRunners) return alone;
  }
  return {};
}

// The one of those that do not run alone at share u of their mass, in the order given.
size_t of_the_field(std::span<const double> weights, std::span<const size_t> alone, double u) {
  const auto for_each = [&](auto&& f) {
    size_t next = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      if (next < alone.size() && alone[next] == i) {
        ++next;
      } else if (weights[i] > 0 && !f(i)) {
        return;
      }
    }
  };
  double mass = 0;
  for_each([&](size_t i) {
    mass += weights[i];
    return true;
  });
  double sum = 0;
  size_t winner = weights.size();
  for_each([&](size_t i) {
    sum += weights[i];
    winner = i;
    return sum <= u * mass;
  });
  return winner;
}

}  // namespace

double racing_number(uint64_t seed, uint64_t step, int32_t id) {
  return exponential_draw(seed, step, kRunner, id);
}

size_t race(const Runners& runners, uint64_t seed, uint64_t step) {
  const std::span<const double> weights = runners.weights;
  const std::vector<size_t> alone = who_run_alone(weights);
  double soonest = std::numeric_limits<double>::infinity();
  size_t winner = weights.size();
  double rest = runners.mass;
  for (const size_t i : alone) {
    rest -= weights[i];
    const double arrival = racing_number(seed, step, runners.id(i)) / weights[i];
    if (arrival < soonest) {
      soonest = arrival;
      winner = i;
    }
  }
  const bool has_field = alone.size() < weights.size() && (rest > 0 || alone.empty());
  if (!has_field) return winner;
  if (!alone.empty() && exponential_draw(seed, step, kField) / rest >= soonest) return winner;
  const size_t other = of_the_field(weights, alone, uniform_draw(seed, step));
  return other < weights.size() ? other : winner;
}

std::vector<Favourite> favourites(const Runners& runners, uint64_t seed, uint64_t step, size_t n) {
  // Weights that are near others but not the same: the chance to win goes with about the power 1.5
  // of weight / E (measured: a draft head against its model, temperatures 0.7 and 1).
  std::vector<Favourite> all;
  double sum = 0;
  for (const size_t i : who_run_alone(runners.weights)) {
    constexpr double kSoonest = 1e-9;  // nothing is divided by 0
    const double draw = racing_number(seed, step, runners.id(i));
    const double pace = runners.weights[i] / std::max(draw, kSoonest);
    all.push_back({i, pace * std::sqrt(pace)});
    sum += all.back().probability;
  }
  const auto end = all.begin() + static_cast<std::ptrdiff_t>(std::min(n, all.size()));
  std::partial_sort(all.begin(), end, all.end(), [](const Favourite& a, const Favourite& b) {
    return a.probability != b.probability ? a.probability > b.probability : a.at < b.at;
  });
  all.erase(end, all.end());
  for (Favourite& one : all) one.probability /= sum;
  return all;
}

}  // namespace edge
