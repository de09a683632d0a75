// The likeliest tokens of a row of logits: what sampling mostly needs of it.
#pragma once

#include "base/plain_types.h"

namespace edge {

constexpr int kMostTopTokens = 64;

struct TopTokens {
  double mass = 0;  // the sum over all tokens of exp(logit - the largest): exp_sum()
  int32_t n = 0;    // of them here: kMostTopTokens, or the vocabulary where that has less
  int32_t ids[kMostTopTokens] = {};  // best first, ties to the lower id
  float logits[kMostTopTokens] = {};
  int32_t padding = 0;  // to whole doubles, so that bytes can be compared
};
static_assert(sizeof(TopTokens) == 8 + 4 * (2 + 2 * kMostTopTokens));

}  // namespace edge
