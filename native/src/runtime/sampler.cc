#include "runtime/sampler.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/exact_math.h"
#include "runtime/philox.h"

namespace edge {
namespace {

constexpr size_t kLanes = 16;        // of every long sum, as in the kernels
constexpr uint32_t kXtcPurpose = 1;  // of random draws; 0 is the choice of the token

struct Candidate {
  float logit = 0;
  int32_t id = 0;
  double weight = 0;  // exp((logit - max) / temperature), 1 for the best
};

// Heap order: the best candidate on top, equal logits by ascending id.
bool is_worse(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit < b.logit : a.id > b.id;
}

bool is_finite(float x) { return (std::bit_cast<uint32_t>(x) & 0x7F800000u) != 0x7F800000u; }

// The lowest id among the largest logits.
size_t argmax(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return best;
}

// Sum of exp((logits - max) * inverse_temperature) over 16 lanes and one fixed tree.
double softmax_mass(std::span<const float> logits, double max, double inverse_temperature) {
  double lanes[kLanes] = {};
  const size_t n_whole = logits.size() / kLanes * kLanes;
  for (size_t i = 0; i < n_whole; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      lanes[j] += exp_nonpositive((static_cast<double>(logits[i + j]) - max) * inverse_temperature);
    }
  }
  for (size_t i = n_whole; i < logits.size(); ++i) {
    lanes[i - n_whole] +=
        exp_nonpositive((static_cast<double>(logits[i]) - max) * inverse_temperature);
  }
  for (size_t width = kLanes / 2; width >= 1; width /= 2) {
    for (size_t j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}

// Pops candidates best first until the filters say stop: what may be drawn, in total order.
std::vector<Candidate> filtered(std::vector<Candidate> heap, double mass,
                                const SamplerParams& params) {
  std::make_heap(heap.begin(), heap.end(), is_worse);
  const size_t n_most =
      params.top_k > 0 ? std::min(heap.size(), static_cast<size_t>(params.top_k)) : heap.size();
  const bool needs_top_k_mass = params.top_k > 0 && params.top_p < 1;
  std::vector<Candidate> kept;
  double top_k_mass = 0;
  while (kept.size() < n_most) {
    // Weights fall: past these two cuts nothing can be kept any more. top_p of a top_k set needs
    // the mass of the whole set first, so its cut comes below.
    if (!kept.empty() && !needs_top_k_mass) {
      if (heap.front().weight < params.min_p) break;
      if (params.top_p < 1 && top_k_mass >= params.top_p * mass) break;
    }
    std::pop_heap(heap.begin(), heap.end(), is_worse);
    kept.push_back(heap.back());
    top_k_mass += heap.back().weight;
    heap.pop_back();
  }
  if (!needs_top_k_mass) return kept;
  size_t n_kept = 1;
  double sum = kept[0].weight;
  while (n_kept < kept.size() && sum < params.top_p * top_k_mass &&
         kept[n_kept].weight >= params.min_p) {
    sum += kept[n_kept++].weight;
  }
  kept.resize(n_kept);
  return kept;
}

double total_weight(std::span<const Candidate> candidates) {
  double mass = 0;
  for (const Candidate& candidate : candidates) mass += candidate.weight;
  return mass;
}

// The candidate at share u of the mass, summed in the order given.
int32_t draw(std::span<const Candidate> candidates, double u) {
  const double target = u * total_weight(candidates);
  double sum = 0;
  int32_t last_possible = candidates[0].id;
  for (const Candidate& candidate : candidates) {
    if (candidate.weight == 0) continue;
    sum += candidate.weight;
    last_possible = candidate.id;
    if (sum > target) break;
  }
  return last_possible;
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

// What may be drawn at a temperature above 0; at least one weight is positive.
std::vector<Candidate> drawable(std::span<const float> logits, const SamplerParams& params,
                                uint64_t step) {
  const double max = static_cast<double>(logits[argmax(logits)]);
  const double inverse = 1.0 / params.temperature;
  std::vector<Candidate> candidates(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates[i] = {logits[i], static_cast<int32_t>(i),
                     exp_nonpositive((static_cast<double>(logits[i]) - max) * inverse)};
  }
  const bool has_filter = params.top_k > 0 || params.top_p < 1 || params.min_p > 0;
  if (has_filter) {
    const double mass = params.top_p < 1 ? softmax_mass(logits, max, inverse) : 0;
    candidates = filtered(std::move(candidates), mass, params);
  }
  if (params.typical_p < 1) keep_typical(candidates, params.typical_p);
  if (params.xtc_probability > 0 &&
      uniform_draw(params.seed, step, kXtcPurpose) < params.xtc_probability) {
    exclude_top_choices(candidates, params.xtc_threshold);
  }
  return candidates;
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
                            const TokenHistory& history) {
  EDGE_RETURN_IF_ERROR(params.check());
  std::vector<float> storage;
  EDGE_ASSIGN_OR_RETURN(const std::span<const float> scores,
                        ruled(logits, rules, history, storage));
  const int32_t id = params.temperature == 0
                         ? static_cast<int32_t>(argmax(scores))
                         : draw(drawable(scores, params, step), uniform_draw(params.seed, step));
  const double max = static_cast<double>(logits[argmax(logits)]);
  const double log_mass = log_positive(softmax_mass(logits, max, 1.0));
  return SampledToken{id, static_cast<double>(logits[static_cast<size_t>(id)]) - max - log_mass};
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
  if (params.temperature == 0) {
    shares.push_back({static_cast<int32_t>(argmax(scores)), 1.0});
    return shares;
  }
  const std::vector<Candidate> candidates = drawable(scores, params, step);
  const double mass = total_weight(candidates);
  for (const Candidate& candidate : candidates) {
    if (candidate.weight > 0) shares.push_back({candidate.id, candidate.weight / mass});
  }
  return shares;
}

Result<std::vector<SampledToken>> top_logprobs(std::span<const float> logits, int64_t k) {
  if (logits.empty()) return {Code::kInvalidArgument, "logits are empty"};
  EDGE_RETURN_IF_ERROR(check_finite(logits));
  const int64_t n_vocab = static_cast<int64_t>(logits.size());
  if (k < 0 || k > n_vocab) {
    return {Code::kInvalidArgument, "logprobs is " + std::to_string(k) + "; it must be from 0 to " +
                                        std::to_string(n_vocab) + ", the size of the vocabulary"};
  }
  std::vector<Candidate> candidates(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates[i] = {logits[i], static_cast<int32_t>(i), 0};
  }
  const auto end = candidates.begin() + static_cast<std::ptrdiff_t>(k);
  std::partial_sort(candidates.begin(), end, candidates.end(),
                    [](const Candidate& a, const Candidate& b) { return is_worse(b, a); });
  const double max = static_cast<double>(logits[argmax(logits)]);
  const double log_mass = log_positive(softmax_mass(logits, max, 1.0));
  std::vector<SampledToken> best;
  for (auto candidate = candidates.begin(); candidate != end; ++candidate) {
    best.push_back({candidate->id, static_cast<double>(candidate->logit) - max - log_mass});
  }
  return best;
}

}  // namespace edge
