// Several sessions at once; edgellm/_native.pyi says what each function means.
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"

namespace edgellm::bindings {
namespace {

Keep keep_from(const std::string& name) {
  if (name == "nothing") return Keep::kNothing;
  if (name == "logits") return Keep::kLogits;
  if (name == "hidden") return Keep::kHidden;
  throw Error("invalid_argument", "InvalidArgumentError",
              "keep must be 'nothing', 'logits' or 'hidden'");
}

// pybind11 takes None for a null pointer.
template <class T>
void check_given(const std::vector<T*>& objects, const char* name) {
  for (const T* object : objects) {
    if (object == nullptr) throw py::type_error(std::string(name) + " holds None");
  }
}

// (is_done, rows or None, exception or None)
py::tuple outcome(SessionRun& run) {
  const py::object error = run.error ? to_exception(*run.error) : py::object(py::none());
  if (run.keep == Keep::kNothing) return py::make_tuple(run.is_done, py::none(), error);
  const Session& session = *run.session;
  const int n_cols = run.keep == Keep::kLogits ? session.n_vocab() : session.d_model();
  const auto n_rows = static_cast<py::ssize_t>(run.rows.size()) / n_cols;
  return py::make_tuple(run.is_done, to_array<float>(std::move(run.rows), {n_rows, n_cols}), error);
}

std::vector<py::tuple> run_batch(const std::vector<Session*>& sessions, double budget_ms,
                                 const std::string& keep) {
  check_given(sessions, "sessions");
  std::vector<SessionRun> runs;
  for (Session* session : sessions) runs.push_back({.session = session, .keep = keep_from(keep)});
  {
    const py::gil_scoped_release unlocked;
    interruptible([&](const auto& poll) {
      Session::run_together(runs, budget_ms, poll);
      return true;
    });
  }
  std::vector<py::tuple> outcomes;
  for (SessionRun& run : runs) outcomes.push_back(outcome(run));
  return outcomes;
}

std::vector<std::optional<std::pair<int32_t, double>>> sample_batch(
    const std::vector<const Session*>& sessions, const std::vector<const SamplerParams*>& params,
    const std::vector<int64_t>& n_prompts, const std::vector<AllowedIds>& allowed) {
  check_given(sessions, "sessions");
  check_given(params, "params");
  std::vector<std::span<const uint32_t>> words;
  for (const AllowedIds& one : allowed) words.push_back(words_of(one));
  std::vector<std::optional<std::pair<int32_t, double>>> chosen;
  const py::gil_scoped_release unlocked;
  for (const auto& token : Session::sample_together(sessions, params, n_prompts, words)) {
    chosen.push_back(token ? std::optional(std::pair(token->id, token->logprob)) : std::nullopt);
  }
  return chosen;
}

}  // namespace

void bind_batch(py::module_& m) {
  m.def("run_batch", &run_batch, py::arg("sessions"), py::arg("budget_ms") = 80.0,
        py::arg("keep") = "nothing");
  m.def("sample_batch", &sample_batch, py::arg("sessions"), py::arg("params"), py::arg("n_prompts"),
        py::arg("allowed") = std::vector<AllowedIds>());
}

}  // namespace edgellm::bindings
