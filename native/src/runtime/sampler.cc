#include "runtime/sampler.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "base/exact_math.h"
#include "base/philox.h"
#include "base/race.h"
#include "kernels/elementwise.h"
#include "kernels/kernels.h"
#include "runtime/best_candidates.h"
#include "runtime/top_ids.h"

namespace edge {
namespace {

constexpr uint32_t kXtcPurpose = 1;  // of random draws; the others are the race's

// Ranked behind the other: by logit, equal ones by id.
bool is_worse(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit < b.logit : a.id > b.id;
}

bool is_finite(float x) { return (std::bit_cast<uint32_t>(x) & 0x7F800000u) != 0x7F800000u; }

const ElementwiseKernels& kernels() { return *active_kernels().elementwise; }

// The lowest id among the largest logits.
size_t argmax(std::span<const float> logits) {
  const int64_t n = static_cast<int64_t>(logits.size());
  return static_cast<size_t>(kernels().argmax_row(logits.data(), n));
}

// The sum of exp((logits - max) * scale), and each of these in `terms` if there is room.
double exp_sum(std::span<const float> logits, double max, double scale, double* terms) {
  return kernels().exp_sum(logits.data(), static_cast<int64_t>(logits.size()), max, scale, terms);
}

double total_weight(std::span<const Candidate> candidates) {
  double mass = 0;
  for (const Candidate& candidate : candidates) mass += candidate.weight;
  return mass;
}

// By ascending id.
std::vector<Candidate> all_candidates(std::span<const float> logits,
                                      std::span<const double> weights) {
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates.push_back({logits[i], static_cast<int32_t>(i), weights[i]});
  }
  return candidates;
}

// What top_k, top_p and min_p leave of all candidates, in total order.
std::vector<Candidate> filtered(std::span<const float> logits, std::span<const double> weights,
                                double mass, const SamplerParams& params) {
  constexpr double kUnlimited = std::numeric_limits<double>::infinity();
  const bool needs_top_k_mass = params.top_k > 0 && params.top_p < 1;
  Cut cut{params.top_k > 0 ? static_cast<size_t>(params.top_k) : logits.size(), 0, kUnlimited};
  if (!needs_top_k_mass) {
    cut.min_weight = params.min_p;
    if (params.top_p < 1) cut.mass = params.top_p * mass;
  }
  std::vector<Candidate> kept = best_candidates(logits, weights, cut);
  if (!needs_top_k_mass) return kept;
  const double enough = params.top_p * total_weight(kept);
  size_t n_kept = 1;
  double sum = kept[0].weight;
  while (n_kept < kept.size() && sum < enough && kept[n_kept].weight >= params.min_p) {
    sum += kept[n_kept++].weight;
  }
  kept.resize(n_kept);
  return kept;
}

// Keeps the candidates whose surprise -ln(p) is nearest the entropy until their mass reaches
// typical_p of all; equal distances by the order given, which stays.
void keep_typical(std::vector<Candidate>& candidates, double typical_p) {
  const double mass = total_weight(candidates);
  const double log_mass = log_positive(mass);
  std::vector<double> surprise(candidates.size());
  double entropy = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const double weight = candidates[i].weight;
    if (weight == 0) continue;
    surprise[i] = log_mass - log_positive(weight);
    entropy += weight / mass * surprise[i];
  }
  using Distance = std::pair<double, size_t>;
  std::vector<Distance> heap;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].weight == 0) continue;
    const double signed_distance = surprise[i] - entropy;
    heap.emplace_back(signed_distance < 0 ? -signed_distance : signed_distance, i);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  std::vector<size_t> kept;
  double sum = 0;
  while (!heap.empty() && (kept.empty() || sum < typical_p * mass)) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    kept.push_back(heap.back().second);
    sum += candidates[kept.back()].weight;
    heap.pop_back();
  }
  std::sort(kept.begin(), kept.end());
  for (size_t i = 0; i < kept.size(); ++i) candidates[i] = candidates[kept[i]];
  candidates.resize(kept.size());
}

// Of the candidates that have at least a share `threshold`, drops all but the least likely one.
void exclude_top_choices(std::vector<Candidate>& candidates, double threshold) {
  const double least = threshold * total_weight(candidates);
  const auto is_top = [&](const Candidate& c) { return c.weight > 0 && c.weight >= least; };
  const Candidate* last = nullptr;
  for (const Candidate& candidate : candidates) {
    if (is_top(candidate) && (last == nullptr || is_worse(candidate, *last))) last = &candidate;
  }
  if (last == nullptr) return;
  const int32_t id = last->id;
  std::erase_if(candidates, [&](const Candidate& c) { return is_top(c) && c.id != id; });
}

// What may be drawn.
struct Drawable {
  std::vector<double> weights;  // 1 for the best
  std::vector<int32_t> ids;     // empty: 0, 1, ..
  double mass = 0;

  Runners runners() const { return {.weights = weights, .ids = ids, .mass = mass}; }
};

Drawable drawable_of(std::span<const Candidate> candidates) {
  double best = 0;  // filters may have dropped the best of all
  for (const Candidate& candidate : candidates) best = std::max(best, candidate.weight);
  Drawable drawable;
  drawable.weights.reserve(candidates.size());
  drawable.ids.reserve(candidates.size());
  for (const Candidate& candidate : candidates) {
    drawable.weights.push_back(candidate.weight / best);
    drawable.ids.push_back(candidate.id);
    drawable.mass += drawable.weights.back();
  }
  return drawable;
}

// At a temperature above 0; `best` is the argmax. mass_of_all: before the filters, if it is wanted.
Drawable drawable(std::span<const float> logits, size_t best, const SamplerParams& params,
                  uint64_t step, double* mass_of_all = nullptr) {
  std::vector<double> weights(logits.size());
  const double mass =
      exp_sum(logits, static_cast<double>(logits[best]), 1.0 / params.temperature, weights.data());
  if (mass_of_all != nullptr) *mass_of_all = mass;
  const bool excludes_top = params.xtc_probability > 0 &&
                            uniform_draw(params.seed, step, kXtcPurpose) < params.xtc_probability;
  const bool has_filter = params.top_k > 0 || params.top_p < 1 || params.min_p > 0;
  if (!has_filter && !(params.typical_p < 1) && !excludes_top) {
    return {.weights = std::move(weights), .ids = {}, .mass = mass};
  }
  std::vector<Candidate> candidates =
      has_filter ? filtered(logits, weights, mass, params) : all_candidates(logits, weights);
  if (params.typical_p < 1) keep_typical(candidates, params.typical_p);
  if (excludes_top) exclude_top_choices(candidates, params.xtc_threshold);
  return drawable_of(candidates);
}

// Where logits[i] was that of ids[i]; no ids: of i.
Drawable named(Drawable from, std::span<const int32_t> ids) {
  if (from.ids.empty()) {
    from.ids.assign(ids.begin(), ids.end());
  } else if (!ids.empty()) {
    for (int32_t& id : from.ids) id = ids[static_cast<size_t>(id)];
  }
  return from;
}

int32_t draw(const Drawable& from, const SamplerParams& params, uint64_t step) {
  const Runners runners = from.runners();
  return runners.id(race(runners, params.seed, step));
}

// `logits` after the rules, which live in `storage` if there are any.
Result<std::span<const float>> ruled(std::span<const float> logits, const LogitRuleParams* rules,
                                     const TokenHistory& history, std::vector<float>& storage) {
  if (logits.empty()) return {Code::kInvalidArgument, "logits are empty"};
  EDGE_RETURN_IF_ERROR(check_finite(logits));
  if (rules == nullptr || rules->is_off()) return logits;
  storage.assign(logits.begin(), logits.end());
  EDGE_RETURN_IF_ERROR(apply_logit_rules(storage, history, *rules));
  return std::span<const float>(storage);
}

// Bans every id that is not allowed. Which ids are allowed changes no other id's logit, so that
// this may come after the rules, which want finite logits.
Status keep_allowed(std::span<float> scores, std::span<const uint32_t> allowed) {
  const size_t n_words = (scores.size() + 31) / 32;
  if (allowed.size() != n_words) {
    return {Code::kInvalidArgument, "allowed has " + std::to_string(allowed.size()) +
                                        " words of 32 bits, but " + std::to_string(scores.size()) +
                                        " ids need " + std::to_string(n_words)};
  }
  constexpr float kBanned = -std::numeric_limits<float>::infinity();
  bool has_any = false;
  for (size_t id = 0; id < scores.size(); ++id) {
    if ((allowed[id / 32] >> (id % 32) & 1) == 0) scores[id] = kBanned;
    has_any = has_any || scores[id] != kBanned;
  }
  if (has_any) return Status::ok();
  return {Code::kInvalidArgument,
          "no token is left: the allowed ones are none, or logit_bias, min_tokens and ignore_eos "
          "ban them all"};
}

}  // namespace

Status SamplerParams::check() const {
  // Written so that NaN fails every test.
  if (!(temperature == 0 || (temperature >= 1e-6 && temperature <= 100))) {
    return out_of_range("temperature", number_text(temperature),
                        "0 (greedy) or from 0.000001 to 100");
  }
  if (top_k < 0) return out_of_range("top_k", std::to_string(top_k), "0 (off) or more");
  if (!(top_p > 0 && top_p <= 1)) {
    return out_of_range("top_p", number_text(top_p), "more than 0 and at most 1");
  }
  if (!(min_p >= 0 && min_p <= 1)) {
    return out_of_range("min_p", number_text(min_p), "from 0 to 1");
  }
  if (!(typical_p > 0 && typical_p <= 1)) {
    return out_of_range("typical_p", number_text(typical_p), "more than 0 and at most 1");
  }
  if (!(xtc_probability >= 0 && xtc_probability <= 1)) {
    return out_of_range("xtc_probability", number_text(xtc_probability), "from 0 (off) to 1");
  }
  if (!(xtc_threshold > 0 && xtc_threshold <= 0.5)) {
    return out_of_range("xtc_threshold", number_text(xtc_threshold), "more than 0 and at most 0.5");
  }
  return Status::ok();
}

Status check_finite(std::span<const float> logits) {
  uint32_t n_bad = 0;
  for (const float x : logits) n_bad += is_finite(x) ? 0u : 1u;
  if (n_bad == 0) return Status::ok();
  size_t first = 0;
  while (is_finite(logits[first])) ++first;
  return {Code::kNumeric, "logits: " + std::to_string(n_bad) + " of " +
                              std::to_string(logits.size()) + " are not finite, the first for id " +
                              std::to_string(first)};
}

Result<SampledToken> sample(std::span<const float> logits, const SamplerParams& params,
                            uint64_t step, const LogitRuleParams* rules,
                            const TokenHistory& history, std::span<const uint32_t> allowed) {
  EDGE_RETURN_IF_ERROR(params.check());
  std::vector<float> storage;
  EDGE_ASSIGN_OR_RETURN(std::span<const float> scores, ruled(logits, rules, history, storage));
  if (!allowed.empty()) {
    if (storage.empty()) storage.assign(logits.begin(), logits.end());
    EDGE_RETURN_IF_ERROR(keep_allowed(storage, allowed));
    scores = storage;
  }
  const size_t top = argmax(logits);
  const bool are_raw = scores.data() == logits.data();
  const size_t best = are_raw ? top : argmax(scores);
  auto id = static_cast<int32_t>(best);
  double mass = 0;
  if (params.temperature > 0) {
    id = draw(drawable(scores, best, params, step, &mass), params, step);
  }
  const double max = static_cast<double>(logits[top]);
  if (!are_raw || params.temperature != 1) mass = exp_sum(logits, max, 1.0, nullptr);
  const double logit = static_cast<double>(logits[static_cast<size_t>(id)]);
  return SampledToken{id, logit - max - log_positive(mass)};
}

bool are_top_enough(const SamplerParams& params, const LogitRuleParams* rules,
                    std::span<const uint32_t> allowed) {
  const bool is_few = params.top_k > 0 && params.top_k <= kMostTopTokens;
  return (params.temperature == 0 || is_few) && (rules == nullptr || rules->is_off()) &&
         allowed.empty();
}

// Filters take candidates by rank: top_k of them have the same ones in the same order, with the
// same weights, as all the logits have.
Result<SampledToken> sample_top(const TopTokens& top, const SamplerParams& params, uint64_t step) {
  EDGE_RETURN_IF_ERROR(params.check());
  const auto n = static_cast<size_t>(top.n);
  const std::span<const int32_t> ids = std::span(top.ids).first(n);
  size_t place = 0;
  if (params.temperature > 0) {
    const Drawable from = drawable(std::span(top.logits).first(n), 0, params, step);
    const int32_t id = draw(named(from, ids), params, step);
    place = static_cast<size_t>(std::find(ids.begin(), ids.end(), id) - ids.begin());
  }
  return logprobs_of(top, top.n)[place];
}

Result<std::vector<TokenShare>> distribution(std::span<const float> logits,
                                             const SamplerParams& params, uint64_t step,
                                             const LogitRuleParams* rules,
                                             const TokenHistory& history) {
  EDGE_RETURN_IF_ERROR(params.check());
  std::vector<float> storage;
  EDGE_ASSIGN_OR_RETURN(const std::span<const float> scores,
                        ruled(logits, rules, history, storage));
  std::vector<TokenShare> shares;
  const size_t best = argmax(scores);
  if (params.temperature == 0) {
    shares.push_back({static_cast<int32_t>(best), 1.0});
    return shares;
  }
  const Drawable from = drawable(scores, best, params, step);
  for (size_t i = 0; i < from.weights.size(); ++i) {
    if (from.weights[i] > 0) shares.push_back({from.runners().id(i), from.weights[i] / from.mass});
  }
  return shares;
}

std::vector<TokenShare> guess(std::span<const float> logits, const SamplerParams& params,
                              uint64_t step, std::span<const int32_t> ids, size_t n) {
  if (logits.empty() || !check_finite(logits).is_ok()) return {};
  const Drawable from = named(drawable(logits, argmax(logits), params, step), ids);
  const Runners runners = from.runners();
  std::vector<TokenShare> guesses;
  for (const Favourite& one : favourites(runners, params.seed, step, n)) {
    guesses.push_back({runners.id(one.at), one.probability});
  }
  return guesses;
}

std::vector<SampledToken> logprobs_of(const TopTokens& top, int64_t k) {
  const double max = static_cast<double>(top.logits[0]), log_mass = log_positive(top.mass);
  std::vector<SampledToken> best;
  for (int64_t i = 0; i < k; ++i) {
    best.push_back({top.ids[i], static_cast<double>(top.logits[i]) - max - log_mass});
  }
  return best;
}

Result<std::vector<SampledToken>> top_logprobs(std::span<const float> logits, int64_t k) {
  if (logits.empty()) return {Code::kInvalidArgument, "logits are empty"};
  EDGE_RETURN_IF_ERROR(check_finite(logits));
  const int64_t n_vocab = static_cast<int64_t>(logits.size());
  if (k < 0 || k > n_vocab) {
    return {Code::kInvalidArgument, "logprobs is " + std::to_string(k) + "; it must be from 0 to " +
                                        std::to_string(n_vocab) + ", the size of the vocabulary"};
  }
  const auto n = static_cast<size_t>(k);
  std::vector<int32_t> ids(k <= kMostTopTokens ? n : logits.size());
  if (k <= kMostTopTokens) {
    top_ids(logits, ids);
  } else {
    std::iota(ids.begin(), ids.end(), 0);
    rank(logits, ids);
  }
  const double max = static_cast<double>(logits[argmax(logits)]);
  const double log_mass = log_positive(exp_sum(logits, max, 1.0, nullptr));
  std::vector<SampledToken> best;
  for (const int32_t id : std::span(ids).first(n)) {
    best.push_back({id, static_cast<double>(logits[static_cast<size_t>(id)]) - max - log_mass});
  }
  return best;
}

}  // namespace edge
