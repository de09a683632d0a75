// Adapters of a model; edgellm/_native.pyi says what each member means.
#include "bindings.h"

namespace edgellm::bindings {

namespace {

template <class T>
auto info(T AdapterInfo::* field) {
  return [field](const Adapter& adapter) { return adapter.info().*field; };
}

}  // namespace

void bind_adapter(py::module_& m) {
  py::class_<Adapter>(m, "Adapter")
      .def_static(
          "load",
          [](const Model& model, const py::object& path) {
            const std::string text = path_text(path);
            const py::gil_scoped_release unlocked;
            return Adapter::load(model, text);
          },
          py::arg("model"), py::arg("path"))
      .def_property_readonly(
          "metadata", [](const Adapter& adapter) { return to_dict(adapter.info().metadata); })
      .def_property_readonly("root", info(&AdapterInfo::root))
      .def_property_readonly("rank", info(&AdapterInfo::rank))
      .def_property_readonly("n_parameters", info(&AdapterInfo::n_parameters))
      .def_property_readonly("file_bytes", info(&AdapterInfo::file_bytes))
      .def_property_readonly("scratch_bytes", info(&AdapterInfo::scratch_bytes));
}

}  // namespace edgellm::bindings
