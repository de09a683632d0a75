// GPTQ's search on arrays.
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"

namespace edgellm::bindings {
namespace {

using F32Array = py::array_t<float, py::array::c_style | py::array::forcecast>;

std::span<const float> values(const F32Array& array) {
  return {array.data(), static_cast<size_t>(array.size())};
}

py::ssize_t n_groups(const GptqCodes& codes, py::ssize_t n_rows) {
  return static_cast<py::ssize_t>(codes.scale_bytes.size()) / n_rows;
}

py::tuple to_arrays(GptqCodes codes, py::ssize_t n_rows, py::ssize_t n_cols) {
  const py::ssize_t groups = n_groups(codes, n_rows);
  return py::make_tuple(to_array<uint8_t>(std::move(codes.scale_bytes), {n_rows, groups}),
                        to_array<int8_t>(std::move(codes.levels), {n_rows, n_cols}));
}

void check_matrix(const F32Array& array, const char* name) {
  if (array.ndim() != 2) throw py::value_error(std::string(name) + " must have two dimensions");
}

py::tuple sweep(const std::string& format, const F32Array& target, const F32Array& upper,
                const F32Array& d_row) {
  check_matrix(target, "target");
  const py::ssize_t n_rows = target.shape(0);
  const py::ssize_t n_cols = target.shape(1);
  std::vector<float> moved(static_cast<size_t>(target.size()));
  GptqCodes codes;
  {
    const py::gil_scoped_release unlocked;
    codes = gptq_sweep(format, n_rows, n_cols, values(target), values(upper), values(d_row), moved);
  }
  return to_arrays(std::move(codes), n_rows, n_cols) +
         py::make_tuple(to_array<float>(std::move(moved), {n_rows, n_cols}));
}

py::tuple descend(const std::string& format, const F32Array& weights, const F32Array& errors,
                  const F32Array& pulls, const F32Array& hessian, const F32Array& group_uppers,
                  const F32Array& group_inverses, const F32Array& d_row,
                  const py::array_t<uint8_t, py::array::c_style>& scale_bytes,
                  const py::array_t<int8_t, py::array::c_style>& levels) {
  check_matrix(weights, "weights");
  const py::ssize_t n_rows = weights.shape(0);
  const py::ssize_t n_cols = weights.shape(1);
  GptqCodes codes{.scale_bytes = {scale_bytes.data(), scale_bytes.data() + scale_bytes.size()},
                  .levels = {levels.data(), levels.data() + levels.size()}};
  const GptqDescent descent{.weights = values(weights),
                            .errors = values(errors),
                            .pulls = values(pulls),
                            .hessian = values(hessian),
                            .group_uppers = values(group_uppers),
                            .group_inverses = values(group_inverses)};
  {
    const py::gil_scoped_release unlocked;
    codes = gptq_descend(format, n_rows, n_cols, descent, values(d_row), std::move(codes));
  }
  return to_arrays(std::move(codes), n_rows, n_cols);
}

}  // namespace

void bind_gptq(py::module_& m) {
  m.def("gptq_sweep", &sweep, py::arg("format"), py::arg("target"), py::arg("upper"),
        py::arg("d_row"));
  m.def("gptq_descend", &descend, py::arg("format"), py::arg("weights"), py::arg("errors"),
        py::arg("pulls"), py::arg("hessian"), py::arg("group_uppers"), py::arg("group_inverses"),
        py::arg("d_row"), py::arg("scale_bytes"), py::arg("levels"));
}

}  // namespace edgellm::bindings
