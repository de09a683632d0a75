#include "api/sampling.h"

#include <algorithm>
#include <string>
#include <utility>

#include "api/guard.h"

namespace edge::api {

SamplerParams internal(const edgellm::SamplerParams& params) {
  return {.temperature = params.temperature,
          .top_k = params.top_k,
          .top_p = params.top_p,
          .min_p = params.min_p,
          .typical_p = params.typical_p,
          .xtc_probability = params.xtc_probability,
          .xtc_threshold = params.xtc_threshold,
          .seed = params.seed};
}

const LogitRuleParams* rule_params(const edgellm::LogitRules& rules) {
  return rules.impl() == nullptr ? nullptr : &rules.impl()->params;
}

TokenHistory history_of(std::span<const int32_t> ids, int64_t n_prompt,
                        const LogitRuleParams* rules) {
  const int64_t n_tokens = static_cast<int64_t>(ids.size());
  if (n_prompt < 0 && rules != nullptr && rules->needs_n_prompt()) {
    raise(Code::kInvalidArgument,
          "presence_penalty, frequency_penalty and min_tokens are about generated tokens: say with "
          "n_prompt how many of the tokens so far were not generated");
  }
  if (n_prompt > n_tokens) {
    raise(Code::kInvalidArgument, "n_prompt is " + std::to_string(n_prompt) + ", but there are " +
                                      std::to_string(n_tokens) + " tokens");
  }
  return {ids, static_cast<size_t>(n_prompt < 0 ? n_tokens : n_prompt)};
}

void prepare_sample(Session& session, const edgellm::SamplerParams& params,
                    std::span<const uint32_t> allowed) {
  session.expect_top(are_top_enough(internal(params), rule_params(params.rules), allowed));
  if (!session.expects_top()) static_cast<void>(session.logits());  // sample_next() has its error
}

edgellm::SampledToken sample_next(Session& session, const edgellm::SamplerParams& params,
                                  int64_t step, int64_t n_prompt,
                                  std::span<const uint32_t> allowed) {
  const uint64_t counter = static_cast<uint64_t>(step < 0 ? session.n_tokens() : step);
  const LogitRuleParams* rules = rule_params(params.rules);
  const SamplerParams sampler = internal(params);
  session.expect_top(are_top_enough(sampler, rules, allowed));
  if (const TopTokens* top = session.top(); top != nullptr && session.expects_top()) {
    const SampledToken token = take_or_throw(sample_top(*top, sampler, counter));
    session.expect_draws(sampler, counter);
    return {token.id, token.logprob};
  }
  const std::span<const float> logits = take_or_throw(session.logits());
  const TokenHistory history = history_of(session.token_ids(), n_prompt, rules);
  const SampledToken token =
      take_or_throw(sample(logits, sampler, counter, rules, history, allowed));
  session.expect_draws(sampler, counter);
  return {token.id, token.logprob};
}

}  // namespace edge::api

namespace edgellm {

using edge::api::entry;
using edge::api::history_of;
using edge::api::internal;
using edge::api::rule_params;
using edge::api::take_or_throw;

void SamplerParams::check() const { edge::api::check(internal(*this).check()); }

LogitRules::LogitRules(LogitRuleParams params) {
  entry([&] {
    // In the order that a search by first id needs.
    std::sort(params.dry_breakers.begin(), params.dry_breakers.end());
    edge::LogitRuleParams checked{.repetition_penalty = params.repetition_penalty,
                                  .penalty_window = params.penalty_window,
                                  .presence_penalty = params.presence_penalty,
                                  .frequency_penalty = params.frequency_penalty,
                                  .dry_multiplier = params.dry_multiplier,
                                  .dry_base = params.dry_base,
                                  .dry_allowed_length = params.dry_allowed_length,
                                  .dry_range = params.dry_range,
                                  .dry_breakers = std::move(params.dry_breakers),
                                  .logit_bias = std::move(params.logit_bias),
                                  .min_tokens = params.min_tokens,
                                  .end_ids = std::move(params.end_ids)};
    edge::api::check(checked.check());
    impl_ = std::make_shared<const Impl>(std::move(checked));
  });
}

std::vector<float> apply_rules(std::span<const float> logits, const LogitRules& rules,
                               std::span<const int32_t> history, int64_t n_prompt) {
  return entry([&] {
    std::vector<float> changed(logits.begin(), logits.end());
    if (const edge::LogitRuleParams* params = rule_params(rules)) {
      edge::api::check(edge::check_finite(logits));
      edge::api::check(
          edge::apply_logit_rules(changed, history_of(history, n_prompt, params), *params));
    }
    return changed;
  });
}

std::vector<TokenShare> distribution(std::span<const float> logits, const SamplerParams& params,
                                     int64_t step, std::span<const int32_t> history,
                                     int64_t n_prompt) {
  return entry([&] {
    const edge::LogitRuleParams* rules = rule_params(params.rules);
    std::vector<TokenShare> shares;
    for (const edge::TokenShare& share :
         take_or_throw(edge::distribution(logits, internal(params), static_cast<uint64_t>(step),
                                          rules, history_of(history, n_prompt, rules)))) {
      shares.push_back({share.id, share.probability});
    }
    return shares;
  });
}

}  // namespace edgellm
