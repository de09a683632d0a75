// The draft head of a model; edgellm/_native.pyi says what each member means.
#include "bindings.h"
#include "edgellm/draft_head.h"

namespace edgellm::bindings {

namespace {

using F32Array = py::array_t<float, py::array::c_style | py::array::forcecast>;

py::tuple add(DraftHead& head, const std::vector<int64_t>& tokens, const F32Array& hidden) {
  const std::vector<int32_t> ids = to_ids(tokens);
  const std::span<const float> values(hidden.data(), static_cast<size_t>(hidden.size()));
  DraftHead::Rows rows;
  {
    const py::gil_scoped_release unlocked;
    rows = head.add(ids, values);
  }
  const auto n = static_cast<py::ssize_t>(ids.size());
  const auto n_vocab = static_cast<py::ssize_t>(head.ids().size());
  const py::ssize_t d_model = n == 0 ? 0 : static_cast<py::ssize_t>(rows.hidden.size()) / n;
  return py::make_tuple(to_array<float>(std::move(rows.logits), {n, n_vocab}),
                        to_array<float>(std::move(rows.hidden), {n, d_model}));
}

}  // namespace

void bind_draft_head(py::module_& m) {
  py::class_<DraftHead>(m, "DraftHead")
      .def(py::init<const Model&, int>(), py::arg("model"), py::arg("n_ctx") = 0)
      .def_property_readonly("ids", &DraftHead::ids)
      .def_property_readonly("n_rows", &DraftHead::n_rows)
      .def("add", &add, py::arg("tokens"), py::arg("hidden"))
      .def("rewind", &DraftHead::rewind, py::arg("n_rows"));
}

}  // namespace edgellm::bindings
