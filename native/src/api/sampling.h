// Public sampling parameters as those of the runtime.
#pragma once

#include <cstdint>
#include <span>

#include "edgellm/engine.h"
#include "runtime/sampler.h"
#include "runtime/session.h"

namespace edgellm {

struct LogitRules::Impl {
  edge::LogitRuleParams params;  // checked
};

}  // namespace edgellm

namespace edge::api {

SamplerParams internal(const edgellm::SamplerParams& params);

// Null if there are no rules; lives as long as `rules`.
const LogitRuleParams* rule_params(const edgellm::LogitRules& rules);

// Throws invalid_argument if n_prompt is more than there is, or is negative (not known) and a rule
// must know it.
TokenHistory history_of(std::span<const int32_t> ids, int64_t n_prompt,
                        const LogitRuleParams* rules);

// Before the sampling of sessions side by side: no step is made in sample_next() behind it.
void prepare_sample(Session& session, const edgellm::SamplerParams& params,
                    std::span<const uint32_t> allowed);
// As edgellm::Session::sample(), whose errors it throws; the session's drafts know of it.
edgellm::SampledToken sample_next(Session& session, const edgellm::SamplerParams& params,
                                  int64_t step, int64_t n_prompt,
                                  std::span<const uint32_t> allowed);

}  // namespace edge::api
