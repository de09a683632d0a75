// Logit rules: pure functions (logits, history, parameters) -> logits that make tokens more or less
// likely, or impossible, before a token is chosen. They know ids only: no text, no model, no
// random numbers. Every rule computes in double and rounds to f32 once per token it touches, so
// the result is the same on any CPU; it stays finite, except that a ban is -infinity.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace edge {

// What stands before the token to come. ids[n_prompt..] were generated.
struct TokenHistory {
  std::span<const int32_t> ids;
  size_t n_prompt = 0;
};

// Rules apply in the order of the fields.
struct LogitRuleParams {
  // Logits of tokens in the history are divided by it if positive, else multiplied; (0, 100].
  double repetition_penalty = 1;
  int64_t penalty_window = 0;    // it looks at the last so many tokens; 0: at all
  double presence_penalty = 0;   // off the logit of every generated token; [-2, 2]
  double frequency_penalty = 0;  // off it for each time it was generated; [-2, 2]

  // DRY: a token that would make a repeated sequence of at least dry_allowed_length tokens longer
  // loses dry_multiplier * dry_base ^ (length - dry_allowed_length).
  double dry_multiplier = 0;       // 0: off; at most 100
  double dry_base = 1.75;          // [1, 10]
  int64_t dry_allowed_length = 2;  // >= 1
  int64_t dry_range = 0;           // looks at the last so many tokens; 0: at all
  // A repeat never reaches back over one of these sequences; none is empty, heads ascend.
  std::vector<std::vector<int32_t>> dry_breakers = {};

  std::vector<std::pair<int32_t, double>> logit_bias = {};  // added; -infinity bans
  int64_t min_tokens = 0;  // end_ids are banned until so many tokens were generated
  std::vector<int32_t> end_ids = {};

  bool is_off() const;
  bool needs_n_prompt() const;  // true if a rule tells generated tokens from the prompt
  // kInvalidArgument naming the parameter and its range.
  Status check() const;
};

// Each rule on its own; `history` ids must be below logits.size().
void penalize_repetition(std::span<float> logits, const TokenHistory& history,
                         const LogitRuleParams& params);
void penalize_presence(std::span<float> logits, const TokenHistory& history,
                       const LogitRuleParams& params);
void penalize_dry(std::span<float> logits, const TokenHistory& history,
                  const LogitRuleParams& params);
void add_bias(std::span<float> logits, const LogitRuleParams& params);
void ban_ends(std::span<float> logits, const TokenHistory& history, const LogitRuleParams& params);

// All of them, on finite logits. kTokenOutOfRange for an id that no logit belongs to;
// kInvalidArgument if every token ends up banned.
Status apply_logit_rules(std::span<float> logits, const TokenHistory& history,
                         const LogitRuleParams& params);

// "NAME is VALUE; it must be RANGE", for every check of sampling parameters.
Status out_of_range(const std::string& name, const std::string& value, const char* range);
// The shortest text that reads back as x.
std::string number_text(double x);

}  // namespace edge
