// The sampler's part of edgellm._native: parameters, and the rules and filters on arrays.
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"

namespace edgellm::bindings {
namespace {

using F32Array = py::array_t<float, py::array::c_style>;
using Ids = std::vector<int64_t>;

SamplerParams make_params(double temperature, int64_t top_k, double top_p, double min_p,
                          double typical_p, double xtc_probability, double xtc_threshold,
                          uint64_t seed, double repetition_penalty, int64_t penalty_window,
                          double presence_penalty, double frequency_penalty, double dry_multiplier,
                          double dry_base, int64_t dry_allowed_length, int64_t dry_range,
                          const std::vector<Ids>& dry_breakers,
                          const std::map<int64_t, double>& logit_bias, int64_t min_tokens,
                          const Ids& end_ids) {
  LogitRuleParams rules{.repetition_penalty = repetition_penalty,
                        .penalty_window = penalty_window,
                        .presence_penalty = presence_penalty,
                        .frequency_penalty = frequency_penalty,
                        .dry_multiplier = dry_multiplier,
                        .dry_base = dry_base,
                        .dry_allowed_length = dry_allowed_length,
                        .dry_range = dry_range,
                        .min_tokens = min_tokens,
                        .end_ids = to_ids(end_ids)};
  for (const Ids& breaker : dry_breakers) rules.dry_breakers.push_back(to_ids(breaker));
  for (const auto& [id, bias] : logit_bias) {
    rules.logit_bias.emplace_back(to_ids({id})[0], bias);
  }
  SamplerParams params{.temperature = temperature,
                       .top_k = top_k,
                       .top_p = top_p,
                       .min_p = min_p,
                       .typical_p = typical_p,
                       .xtc_probability = xtc_probability,
                       .xtc_threshold = xtc_threshold,
                       .seed = seed,
                       .rules = LogitRules(std::move(rules))};
  params.check();
  return params;
}

std::span<const float> logits_of(const F32Array& logits) {
  if (logits.ndim() != 1) throw py::value_error("logits must have one dimension");
  return {logits.data(), static_cast<size_t>(logits.size())};
}

}  // namespace

std::span<const uint32_t> words_of(const AllowedIds& allowed) {
  if (!allowed) return {};
  if (allowed->ndim() != 1 || allowed->size() == 0) {
    throw py::value_error("allowed must have one dimension and at least one word");
  }
  return {allowed->data(), static_cast<size_t>(allowed->size())};
}

namespace {

py::array apply_rules(const F32Array& logits, const SamplerParams& params, const Ids& history,
                      std::optional<int64_t> n_prompt) {
  const std::span<const float> values = logits_of(logits);
  const std::vector<int32_t> ids = to_ids(history);
  std::vector<float> changed;
  {
    const py::gil_scoped_release unlocked;
    changed = edgellm::apply_rules(values, params.rules, ids, n_prompt.value_or(-1));
  }
  const py::ssize_t n_vocab = static_cast<py::ssize_t>(changed.size());
  return to_array<float>(std::move(changed), {n_vocab});
}

std::vector<std::pair<int32_t, double>> distribution(const F32Array& logits,
                                                     const SamplerParams& params, int64_t step,
                                                     const Ids& history,
                                                     std::optional<int64_t> n_prompt) {
  if (step < 0) throw py::value_error("step must be 0 or more");
  const std::span<const float> values = logits_of(logits);
  const std::vector<int32_t> ids = to_ids(history);
  std::vector<std::pair<int32_t, double>> shares;
  const py::gil_scoped_release unlocked;
  for (const TokenShare& share :
       edgellm::distribution(values, params, step, ids, n_prompt.value_or(-1))) {
    shares.emplace_back(share.id, share.probability);
  }
  return shares;
}

}  // namespace

void bind_sampler(py::module_& m) {
  const SamplerParams off;
  const LogitRuleParams none;
  py::class_<SamplerParams>(m, "SamplerParams")
      .def(py::init(&make_params), py::kw_only(), py::arg("temperature") = off.temperature,
           py::arg("top_k") = off.top_k, py::arg("top_p") = off.top_p, py::arg("min_p") = off.min_p,
           py::arg("typical_p") = off.typical_p, py::arg("xtc_probability") = off.xtc_probability,
           py::arg("xtc_threshold") = off.xtc_threshold, py::arg("seed") = off.seed,
           py::arg("repetition_penalty") = none.repetition_penalty,
           py::arg("penalty_window") = none.penalty_window,
           py::arg("presence_penalty") = none.presence_penalty,
           py::arg("frequency_penalty") = none.frequency_penalty,
           py::arg("dry_multiplier") = none.dry_multiplier, py::arg("dry_base") = none.dry_base,
           py::arg("dry_allowed_length") = none.dry_allowed_length,
           py::arg("dry_range") = none.dry_range, py::arg("dry_breakers") = std::vector<Ids>(),
           py::arg("logit_bias") = std::map<int64_t, double>(),
           py::arg("min_tokens") = none.min_tokens, py::arg("end_ids") = Ids())
      .def_readonly("temperature", &SamplerParams::temperature)
      .def_readonly("top_k", &SamplerParams::top_k)
      .def_readonly("top_p", &SamplerParams::top_p)
      .def_readonly("min_p", &SamplerParams::min_p)
      .def_readonly("seed", &SamplerParams::seed);
  m.def("apply_rules", &apply_rules, py::arg("logits"), py::arg("params"),
        py::arg("history") = Ids(), py::arg("n_prompt") = py::none());
  m.def("distribution", &distribution, py::arg("logits"), py::arg("params"), py::arg("step"),
        py::arg("history") = Ids(), py::arg("n_prompt") = py::none());
}

}  // namespace edgellm::bindings
