// The best of all logits, best first: in time that goes with how many there are, however flat they
// are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace edge {

struct Candidate {
  float logit = 0;
  int32_t id = 0;
  double weight = 0;  // exp((logit - max) / temperature), 1 for the best
};

// Where the best candidates end: before the first one that is one too many, weighs too little, or
// follows on enough mass. The first one always stays.
struct Cut {
  size_t n_most;
  double min_weight;
  double mass;
};

// Ids by falling logit, equal ones (as 0 and -0 are) in the order given, which is ascending.
void rank(std::span<const float> logits, std::vector<int32_t>& ids);

// Of all ids, weights[id] going with logits[id], those before the cut, ranked.
std::vector<Candidate> best_candidates(std::span<const float> logits,
                                       std::span<const double> weights, const Cut& cut);

}  // namespace edge
