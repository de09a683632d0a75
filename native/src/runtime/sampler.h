// Sampler: a pure function (logits, parameters, history, step) -> token. Knows nothing of models,
// text or sessions, keeps no state, and gives the same token on any CPU: own exp and log
// (exact_math.h), fixed order of every sum, total order of candidates (logit descending, id
// ascending). The order of operations is that of docs/SAMPLING.md.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backends/top_tokens.h"
#include "base/status.h"
#include "runtime/logit_rules.h"

namespace edge {

// Filters apply in the order of the fields, each to what the ones before left. Probabilities are
// softmax(logits / temperature).
struct SamplerParams {
  double temperature = 0;  // 0: greedy, ties to the lower id, no filter matters; at most 100
  int64_t top_k = 0;       // keep the k best; 0: all
  double top_p = 1;        // keep the best until their share of what top_k left reaches it; (0, 1]
  double min_p = 0;        // keep what is at least min_p times as likely as the best; [0, 1]
  double typical_p = 1;    // keep those whose surprise is nearest the entropy, until their share
                           // of what the filters before left reaches it; (0, 1]
  double xtc_probability = 0;  // how often to drop all but the least likely of the tokens whose
  double xtc_threshold = 0.1;  // share is at least this; [0, 1] and (0, 0.5]
  uint64_t seed = 0;

  // kInvalidArgument naming the parameter and its range.
  Status check() const;
};

struct SampledToken {
  int32_t id = 0;
  double logprob = 0;  // log softmax of the raw logits (temperature 1, no rule, no filter)
};

struct TokenShare {
  int32_t id = 0;
  double probability = 0;  // > 0
};

// kNumeric, naming the first bad id, if a logit is not finite.
Status check_finite(std::span<const float> logits);

// `step` is the counter of the random stream `params.seed`: one draw per step, and one of its own
// for XTC. `rules`, if given, must have been checked. `allowed`, if not empty, has one bit for each
// id, ceil(logits.size() / 32) words of them, the lowest id in the lowest bit; ids without it are
// out. kNumeric, naming the first bad id, if a logit is not finite; kInvalidArgument if logits are
// empty, params are bad, the words are not as many, or no id is left.
Result<SampledToken> sample(std::span<const float> logits, const SamplerParams& params,
                            uint64_t step, const LogitRuleParams* rules = nullptr,
                            const TokenHistory& history = {},
                            std::span<const uint32_t> allowed = {});

// Whether the likeliest tokens are all that sample() would look at: greedy, or the best top_k of
// them, without rules and with every id allowed.
bool are_top_enough(const SamplerParams& params, const LogitRuleParams* rules,
                    std::span<const uint32_t> allowed);
// Then sample(), which gives the same token and logprob. kInvalidArgument if params are bad.
Result<SampledToken> sample_top(const TopTokens& top, const SamplerParams& params, uint64_t step);

// What sample() draws from: every token it can return with its probability.
Result<std::vector<TokenShare>> distribution(std::span<const float> logits,
                                             const SamplerParams& params, uint64_t step,
                                             const LogitRuleParams* rules = nullptr,
                                             const TokenHistory& history = {});

// The at most n tokens that sample() is likeliest to return of logits that are near these,
// likeliest first, and how likely: it knows what will be drawn with. For a temperature above 0 and
// params that are checked; none of logits that are not finite. logits[i] is that of ids[i]; no ids:
// of i.
std::vector<TokenShare> guess(std::span<const float> logits, const SamplerParams& params,
                              uint64_t step, std::span<const int32_t> ids, size_t n);

// top_logprobs() where k <= top.n.
std::vector<SampledToken> logprobs_of(const TopTokens& top, int64_t k);

// The k most likely tokens under the raw softmax, best first; k from 0 to logits.size().
Result<std::vector<SampledToken>> top_logprobs(std::span<const float> logits, int64_t k);

}  // namespace edge
