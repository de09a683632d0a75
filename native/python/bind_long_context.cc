// Long contexts in little memory; edgellm/_native.pyi says what each member means.
#include "bindings.h"

namespace edgellm::bindings {

void compress_session(Session& session, int n_keep, int n_sink, int window, int pool) {
  const py::gil_scoped_release unlocked;
  interruptible([&](const auto& poll) {
    session.compress(n_keep, n_sink, window, pool, poll);
    return true;
  });
}

void bind_long_context(py::class_<Session>& session) {
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  session.def("shift", &Session::shift, py::arg("n_sink"), py::arg("n_drop"), Unlocked())
      .def("stream_within", &Session::stream_within, py::arg("n_sink"), py::arg("window"),
           Unlocked())
      .def("compress", &compress_session, py::arg("n_keep"), py::kw_only(), py::arg("n_sink") = 4,
           py::arg("window") = 32, py::arg("pool") = 7)
      .def("trim", &Session::trim, py::arg("n_bytes") = UINT64_MAX, Unlocked())
      .def_property_readonly("kept_ranges", py::cpp_function(&Session::kept_ranges, Unlocked()))
      .def("most_tokens_after", &Session::most_tokens_after, py::arg("n_tokens"), Unlocked())
      .def_property_readonly("n_dropped", py::cpp_function(&Session::n_dropped, Unlocked()));
}

}  // namespace edgellm::bindings
