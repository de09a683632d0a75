// Sampler: a pure function (logits, parameters, step) -> token. Knows nothing of models, text or
// sessions, keeps no state, and gives the same token on any CPU: own exp (exact_math.h), fixed
// order of every sum, total order of candidates (logit descending, id ascending).
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"

namespace edge {

// Filters apply in the order of the fields. Probabilities are softmax(logits / temperature).
struct SamplerParams {
  double temperature = 0;  // 0: greedy, ties to the lower id, no filter matters; at most 100
  int64_t top_k = 0;       // keep the k best; 0: all
  double top_p = 1;        // keep the best until their share of what top_k left reaches it; (0, 1]
  double min_p = 0;        // keep what is at least min_p times as likely as the best; [0, 1]
  uint64_t seed = 0;

  // kInvalidArgument naming the parameter and its range.
  Status check() const;
};

struct SampledToken {
  int32_t id = 0;
  double logprob = 0;  // log softmax of the raw logits (temperature 1, no filter)
};

// `step` is the counter of the random stream `params.seed`: one draw per step. kNumeric, naming the
// first bad id, if a logit is not finite; kInvalidArgument if logits are empty or params are bad.
Result<SampledToken> sample(std::span<const float> logits, const SamplerParams& params,
                            uint64_t step);

}  // namespace edge
