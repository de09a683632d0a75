// Race: one of several at random, each as often as its weight says, by exponential numbers that
// belong to ids: of E(id) / weight, E = -ln(1 - uniform), the least wins (the Gumbel-max trick in
// other words). Who draws from similar weights with the same seed and step mostly gets the same id,
// whatever the order of the ids and of what others weigh: that is what a drafter needs that guesses
// what will be drawn (Daliri, Musco, Suresh, arXiv:2408.07978). Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace edge {

// E(id), the least of which by its weight wins.
double racing_number(uint64_t seed, uint64_t step, int32_t id);

// Who runs: ids[i], or i itself where `ids` is empty, with weights[i] in [0, 1], that of the best
// of all being 1. `mass`: the sum of the weights.
struct Runners {
  std::span<const double> weights = {};
  std::span<const int32_t> ids = {};
  double mass = 0;

  int32_t id(size_t i) const { return ids.empty() ? static_cast<int32_t>(i) : ids[i]; }
};

// The index of the winner, whose weight is positive; one weight must be. To draw 128k numbers for
// the few that can win would cost more than all else: the likeliest, up to kMostRunners, run for
// themselves and the others as one, who share what they win by one more number.
size_t race(const Runners& runners, uint64_t seed, uint64_t step);
inline constexpr size_t kMostRunners = 512;

// Of those who run for themselves, the n likeliest to win a race of weights that are near these,
// likeliest first, and how likely each is to.
struct Favourite {
  size_t at = 0;
  double probability = 0;
};
std::vector<Favourite> favourites(const Runners& runners, uint64_t seed, uint64_t step, size_t n);

}  // namespace edge
