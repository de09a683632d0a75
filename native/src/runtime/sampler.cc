#include "runtime/sampler.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstddef>
#include <string>
#include <vector>

#include "runtime/exact_math.h"
#include "runtime/philox.h"

namespace edge {
namespace {

constexpr size_t kLanes = 16;  // of every long sum, as in the kernels

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

// The candidate at share u of the mass, summed in the order given.
int32_t draw(std::span<const Candidate> candidates, double u) {
  double mass = 0;
  for (const Candidate& candidate : candidates) mass += candidate.weight;
  const double target = u * mass;
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

int32_t choose(std::span<const float> logits, size_t best, const SamplerParams& params,
               uint64_t step) {
  const double max = static_cast<double>(logits[best]);
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
  return draw(candidates, uniform_draw(params.seed, step));
}

// The shortest text that reads back as x.
std::string number_text(double x) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, x).ptr};
}

Status out_of_range(const char* name, const std::string& value, const char* range) {
  return {Code::kInvalidArgument, std::string(name) + " is " + value + "; it must be " + range};
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
  return Status::ok();
}

Result<SampledToken> sample(std::span<const float> logits, const SamplerParams& params,
                            uint64_t step) {
  EDGE_RETURN_IF_ERROR(params.check());
  if (logits.empty()) return {Code::kInvalidArgument, "logits are empty"};
  EDGE_RETURN_IF_ERROR(check_finite(logits));
  const size_t best = argmax(logits);
  const int32_t id =
      params.temperature == 0 ? static_cast<int32_t>(best) : choose(logits, best, params, step);
  const double max = static_cast<double>(logits[best]);
  const double log_mass = log_positive(softmax_mass(logits, max, 1.0));
  return SampledToken{id, static_cast<double>(logits[static_cast<size_t>(id)]) - max - log_mass};
}

}  // namespace edge
