#include "runtime/best_candidates.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace edge {
namespace {

// Nearly always a few candidates hold nearly all mass, so all are looked at only if those from the
// first of these weights on, or from the second, do not suffice.
constexpr std::array<double, 2> kLeast = {0x1p-7, 0x1p-32};

// Classes of weights, an eighth of an octave each: the exponent of a double and three bits more.
constexpr int kShift = 52 - 3;
constexpr uint64_t kFirstClass = std::bit_cast<uint64_t>(1.0) >> kShift;
constexpr size_t kMostClasses = 8 * 32 + 1;

size_t class_of(double weight) {
  return static_cast<size_t>(kFirstClass - (std::bit_cast<uint64_t>(weight) >> kShift));
}

double least_of(size_t weight_class) {
  return std::bit_cast<double>((kFirstClass - weight_class) << kShift);
}

// Rises as logits fall.
uint32_t place_of(float logit) {
  const auto bits = std::bit_cast<uint32_t>(logit + 0.0f);
  return (bits >> 31) != 0 ? bits : ~bits & 0x7FFFFFFFu;
}

std::vector<int32_t> ids_from(std::span<const double> weights, double floor) {
  std::vector<int32_t> ids(weights.size());
  size_t n = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    ids[n] = static_cast<int32_t>(i);
    n += weights[i] >= floor ? 1u : 0u;
  }
  ids.resize(n);
  return ids;
}

// A weight that all before the cut have, or hardly less; 0: that would be less than `least`, which
// all `ids` have.
double floor_of(std::span<const double> weights, std::span<const int32_t> ids, double least,
                const Cut& cut) {
  std::array<size_t, kMostClasses> n_of{};
  std::array<double, kMostClasses> mass_of{};
  for (const int32_t id : ids) {
    const double weight = weights[static_cast<size_t>(id)];
    ++n_of[class_of(weight)];
    mass_of[class_of(weight)] += weight;
  }
  size_t n = 0;
  double mass = 0;
  for (size_t c = 0; c <= class_of(least); ++c) {
    n += n_of[c];
    mass += mass_of[c];
    if (n >= cut.n_most || mass >= cut.mass) return least_of(c);
  }
  return 0;
}

std::vector<Candidate> ranked(std::span<const float> logits, std::span<const double> weights,
                              std::vector<int32_t> ids) {
  rank(logits, ids);
  std::vector<Candidate> candidates;
  candidates.reserve(ids.size());
  for (const int32_t id : ids) {
    const auto at = static_cast<size_t>(id);
    candidates.push_back({logits[at], id, weights[at]});
  }
  return candidates;
}

// False if they run out before the cut.
bool cut_off(std::vector<Candidate>& candidates, const Cut& cut) {
  double sum = 0;
  for (size_t n = 0; n < candidates.size(); ++n) {
    const double weight = candidates[n].weight;
    const bool is_over = n == cut.n_most || sum >= cut.mass || weight < cut.min_weight;
    if (n > 0 && is_over) {
      candidates.resize(n);
      return true;
    }
    sum += weight;
  }
  return candidates.size() >= cut.n_most || sum >= cut.mass;
}

}  // namespace

void rank(std::span<const float> logits, std::vector<int32_t>& ids) {
  struct Placed {
    uint32_t place;
    int32_t id;
  };
  std::vector<Placed> from(ids.size()), to(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    from[i] = {place_of(logits[static_cast<size_t>(ids[i])]), ids[i]};
  }
  for (int shift = 0; shift < 32; shift += 8) {  // by one digit after the other, the lowest first
    std::array<size_t, 257> begin{};
    for (const Placed& one : from) ++begin[(one.place >> shift & 0xFF) + 1];
    for (size_t digit = 1; digit < begin.size(); ++digit) begin[digit] += begin[digit - 1];
    for (const Placed& one : from) to[begin[one.place >> shift & 0xFF]++] = one;
    from.swap(to);
  }
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = from[i].id;
}

std::vector<Candidate> best_candidates(std::span<const float> logits,
                                       std::span<const double> weights, const Cut& cut) {
  for (const double least : kLeast) {
    const bool are_all = cut.min_weight >= least;  // that may stay
    const double from = are_all ? cut.min_weight : least;
    std::vector<int32_t> ids = ids_from(weights, from);
    const double floor = floor_of(weights, ids, from, cut);
    if (floor == 0 && !are_all) continue;
    std::erase_if(ids, [&](int32_t id) { return weights[static_cast<size_t>(id)] < floor; });
    std::vector<Candidate> candidates = ranked(logits, weights, std::move(ids));
    // Sums in another order may differ in their last bits.
    if (cut_off(candidates, cut) || (floor == 0 && are_all)) return candidates;
  }
  std::vector<Candidate> candidates = ranked(logits, weights, ids_from(weights, 0));
  cut_off(candidates, cut);
  return candidates;
}

}  // namespace edge
