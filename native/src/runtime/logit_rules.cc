#include "runtime/logit_rules.h"

#include <algorithm>
#include <charconv>
#include <limits>

namespace edge {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();
constexpr int64_t kMostTokens = std::numeric_limits<int32_t>::max();

// To f32, clamped to what is finite: only bans are infinite.
float to_logit(double x) {
  constexpr double kMost = static_cast<double>(std::numeric_limits<float>::max());
  return static_cast<float>(std::clamp(x, -kMost, kMost));
}

float& at(std::span<float> logits, int32_t id) { return logits[static_cast<size_t>(id)]; }

// The last n ids; all of them if n is 0.
std::span<const int32_t> last(std::span<const int32_t> ids, int64_t n) {
  return n > 0 && static_cast<size_t>(n) < ids.size() ? ids.last(static_cast<size_t>(n)) : ids;
}

std::vector<int32_t> sorted(std::span<const int32_t> ids) {
  std::vector<int32_t> copy(ids.begin(), ids.end());
  std::sort(copy.begin(), copy.end());
  return copy;
}

// The breakers that begin with `id`.
std::span<const std::vector<int32_t>> breakers_of(const LogitRuleParams& params, int32_t id) {
  const auto& all = params.dry_breakers;
  const auto first = std::lower_bound(
      all.begin(), all.end(), id,
      [](const std::vector<int32_t>& breaker, int32_t head) { return breaker[0] < head; });
  auto end = first;
  while (end != all.end() && (*end)[0] == id) ++end;
  return {first, end};
}

bool is_breaker(const LogitRuleParams& params, int32_t id) {
  const auto breakers = breakers_of(params, id);
  return std::any_of(breakers.begin(), breakers.end(),
                     [](const std::vector<int32_t>& breaker) { return breaker.size() == 1; });
}

// Tokens after the last breaker in `ids`; all of them if there is none.
size_t n_after_breaker(std::span<const int32_t> ids, const LogitRuleParams& params) {
  for (size_t n_behind = 0; n_behind < ids.size(); ++n_behind) {
    const std::span<const int32_t> tail = ids.last(n_behind + 1);
    size_t longest = 0;
    for (const std::vector<int32_t>& breaker : breakers_of(params, tail[0])) {
      if (breaker.size() <= tail.size() &&
          std::equal(breaker.begin(), breaker.end(), tail.begin())) {
        longest = std::max(longest, breaker.size());
      }
    }
    if (longest > 0) return tail.size() - longest;
  }
  return ids.size();
}

// n[k]: how many tokens before ids[ids.size() - k] equal the last ones of ids. The Z function of
// the reversed ids, in linear time.
std::vector<size_t> repeat_lengths(std::span<const int32_t> ids) {
  const size_t n = ids.size();
  const auto back = [&](size_t i) { return ids[n - 1 - i]; };
  std::vector<size_t> lengths(n);
  size_t left = 0;
  size_t right = 0;  // back(left..right) equals back(0..right - left), right excluded
  for (size_t k = 1; k < n; ++k) {
    size_t length = k < right ? std::min(lengths[k - left], right - k) : 0;
    while (k + length < n && back(length) == back(k + length)) ++length;
    lengths[k] = length;
    if (k + length > right) {
      left = k;
      right = k + length;
    }
  }
  return lengths;
}

// base ^ n by squaring, from multiplications only; may be infinite.
double power(double base, size_t n) {
  double result = 1;
  for (; n > 0; n /= 2, base *= base) {
    if (n % 2 == 1) result *= base;
  }
  return result;
}

Status check_count(const char* name, int64_t value, int64_t least, const char* range) {
  if (value >= least && value <= kMostTokens) return Status::ok();
  return out_of_range(name, std::to_string(value), range);
}

Status check_id(const char* name, int32_t id, size_t n_vocab) {
  if (id >= 0 && static_cast<size_t>(id) < n_vocab) return Status::ok();
  return {Code::kTokenOutOfRange, std::string(name) + " holds id " + std::to_string(id) +
                                      "; ids are from 0 to " + std::to_string(n_vocab - 1)};
}

}  // namespace

bool LogitRuleParams::is_off() const {
  return repetition_penalty == 1 && presence_penalty == 0 && frequency_penalty == 0 &&
         dry_multiplier == 0 && logit_bias.empty() && min_tokens == 0;
}

bool LogitRuleParams::needs_n_prompt() const {
  return presence_penalty != 0 || frequency_penalty != 0 || min_tokens > 0;
}

Status LogitRuleParams::check() const {
  // Written so that NaN fails every test.
  const auto is_within = [](double x, double least, double most) {
    return x >= least && x <= most;
  };
  if (!(repetition_penalty > 0 && repetition_penalty <= 100)) {
    return out_of_range("repetition_penalty", number_text(repetition_penalty),
                        "more than 0 and at most 100");
  }
  constexpr const char* kWindow = "from 0 (all) to 2147483647";
  EDGE_RETURN_IF_ERROR(check_count("penalty_window", penalty_window, 0, kWindow));
  if (!is_within(presence_penalty, -2, 2)) {
    return out_of_range("presence_penalty", number_text(presence_penalty), "from -2 to 2");
  }
  if (!is_within(frequency_penalty, -2, 2)) {
    return out_of_range("frequency_penalty", number_text(frequency_penalty), "from -2 to 2");
  }
  if (!is_within(dry_multiplier, 0, 100)) {
    return out_of_range("dry_multiplier", number_text(dry_multiplier), "from 0 (off) to 100");
  }
  if (!is_within(dry_base, 1, 10)) {
    return out_of_range("dry_base", number_text(dry_base), "from 1 to 10");
  }
  EDGE_RETURN_IF_ERROR(
      check_count("dry_allowed_length", dry_allowed_length, 1, "from 1 to 2147483647"));
  EDGE_RETURN_IF_ERROR(check_count("dry_range", dry_range, 0, kWindow));
  for (size_t i = 0; i < dry_breakers.size(); ++i) {
    const std::string name = "dry_breakers[" + std::to_string(i) + "]";
    if (dry_breakers[i].empty()) return {Code::kInvalidArgument, name + " is empty"};
    if (i > 0 && dry_breakers[i][0] < dry_breakers[i - 1][0]) {
      return {Code::kInvalidArgument, name + " is out of order; sort them"};
    }
  }
  for (const auto& [id, bias] : logit_bias) {
    if (!(bias < std::numeric_limits<double>::infinity())) {
      return out_of_range("logit_bias of id " + std::to_string(id), number_text(bias),
                          "a finite number, or -inf to ban the token");
    }
  }
  return check_count("min_tokens", min_tokens, 0, "from 0 to 2147483647");
}

void penalize_repetition(std::span<float> logits, const TokenHistory& history,
                         const LogitRuleParams& params) {
  if (params.repetition_penalty == 1) return;
  std::vector<int32_t> ids = sorted(last(history.ids, params.penalty_window));
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  for (const int32_t id : ids) {
    const double x = static_cast<double>(at(logits, id));
    at(logits, id) =
        to_logit(x < 0 ? x * params.repetition_penalty : x / params.repetition_penalty);
  }
}

void penalize_presence(std::span<float> logits, const TokenHistory& history,
                       const LogitRuleParams& params) {
  if (params.presence_penalty == 0 && params.frequency_penalty == 0) return;
  const std::vector<int32_t> ids = sorted(history.ids.subspan(history.n_prompt));
  for (size_t first = 0; first < ids.size();) {
    size_t end = first + 1;
    while (end < ids.size() && ids[end] == ids[first]) ++end;
    const double n_times = static_cast<double>(end - first);
    const double penalty = params.presence_penalty + params.frequency_penalty * n_times;
    float& logit = at(logits, ids[first]);
    logit = to_logit(static_cast<double>(logit) - penalty);
    first = end;
  }
}

void penalize_dry(std::span<float> logits, const TokenHistory& history,
                  const LogitRuleParams& params) {
  const size_t n_allowed = static_cast<size_t>(params.dry_allowed_length);
  const std::span<const int32_t> ids = last(history.ids, params.dry_range);
  if (params.dry_multiplier == 0 || ids.size() <= n_allowed) return;
  const size_t n_most = n_after_breaker(ids, params);
  if (n_most < n_allowed) return;
  const std::vector<size_t> lengths = repeat_lengths(ids);
  std::vector<std::pair<int32_t, size_t>> longest;  // (id that would go on, tokens repeated so far)
  for (size_t k = 1; k < ids.size(); ++k) {
    const size_t length = std::min(lengths[k], n_most);
    if (length >= n_allowed) longest.emplace_back(ids[ids.size() - k], length);
  }
  std::sort(longest.begin(), longest.end());
  for (size_t i = 0; i < longest.size(); ++i) {
    const auto [id, length] = longest[i];
    const bool is_longest = i + 1 == longest.size() || longest[i + 1].first != id;
    if (!is_longest || is_breaker(params, id)) continue;
    const double penalty = params.dry_multiplier * power(params.dry_base, length - n_allowed);
    at(logits, id) = to_logit(static_cast<double>(at(logits, id)) - penalty);
  }
}

void add_bias(std::span<float> logits, const LogitRuleParams& params) {
  for (const auto& [id, bias] : params.logit_bias) {
    float& logit = at(logits, id);
    const bool is_ban = bias == -std::numeric_limits<double>::infinity() || logit == kBanned;
    logit = is_ban ? kBanned : to_logit(static_cast<double>(logit) + bias);
  }
}

void ban_ends(std::span<float> logits, const TokenHistory& history, const LogitRuleParams& params) {
  const size_t n_generated = history.ids.size() - history.n_prompt;
  if (n_generated >= static_cast<size_t>(params.min_tokens)) return;
  for (const int32_t id : params.end_ids) at(logits, id) = kBanned;
}

Status apply_logit_rules(std::span<float> logits, const TokenHistory& history,
                         const LogitRuleParams& params) {
  if (logits.empty()) return {Code::kInvalidArgument, "logits are empty"};
  if (history.n_prompt > history.ids.size()) {
    return out_of_range("n_prompt", std::to_string(history.n_prompt),
                        "at most the number of tokens in the history");
  }
  for (const int32_t id : history.ids) {
    EDGE_RETURN_IF_ERROR(check_id("the history", id, logits.size()));
  }
  for (const auto& [id, bias] : params.logit_bias) {
    EDGE_RETURN_IF_ERROR(check_id("logit_bias", id, logits.size()));
  }
  for (const int32_t id : params.end_ids) {
    EDGE_RETURN_IF_ERROR(check_id("end_ids", id, logits.size()));
  }
  penalize_repetition(logits, history, params);
  penalize_presence(logits, history, params);
  penalize_dry(logits, history, params);
  add_bias(logits, params);
  ban_ends(logits, history, params);
  if (std::all_of(logits.begin(), logits.end(), [](float x) { return x == kBanned; })) {
    return {Code::kInvalidArgument,
            "logit_bias, min_tokens and ignore_eos ban every token of the vocabulary; leave one"};
  }
  return Status::ok();
}

Status out_of_range(const std::string& name, const std::string& value, const char* range) {
  return {Code::kInvalidArgument, name + " is " + value + "; it must be " + range};
}

std::string number_text(double x) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, x).ptr};
}

}  // namespace edge
