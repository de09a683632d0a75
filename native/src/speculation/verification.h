// Verification of drafts that were drawn at random: which of them may stand so that the text has
// exactly the distribution of the model, though it was drafted with another one.
//
// Sessions need none of it: there the sampler draws every token as without drafts, from the same
// random numbers, and a draft stands where it is what was drawn. Which keeps the distribution and
// the very tokens; and of drafts that were not drawn but chosen, as all drafters here do, no rule
// accepts more: each stands as often as the model would have said it. A drafter that draws has its
// drafts accepted more often by these, at the price that the tokens for a seed are others with it
// than without.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "speculation/token_tree.h"

namespace edge {

// Children of a node were drawn from its `draft` distribution in the order of their indices, none
// twice: what was drawn is left out for the next.
struct DrawnTree {
  TokenTree tree;
  // [1 + tree.size()][n_vocab], each with the sum 1: what follows the last committed token, then
  // what follows each node.
  std::vector<std::vector<double>> target;  // by the model, as it would be sampled
  std::vector<std::vector<double>> draft;   // > 0 for a token that was drawn
};

struct Verdict {
  int node = -1;     // the last one that stands, all above it do; -1: none
  int32_t next = 0;  // the token after it
};

// Uniform in [0, 1), a new one with each call.
using UniformDraws = std::function<double()>;

// From the root down: a child stands with probability target / draft, or else what the drafts had
// too much of leaves the target. Leviathan, Kalman and Matias, arXiv 2211.17192; for several
// children Miao et al., arXiv 2305.09781.
Verdict verify_rejection(const DrawnTree& drawn, const UniformDraws& draw);

// From the leaves up: a whole path stands or falls together, so a likely end makes up for an
// unlikely beginning. Weng et al., arXiv 2505.12398.
Verdict verify_traversal(const DrawnTree& drawn, const UniformDraws& draw);

}  // namespace edge
