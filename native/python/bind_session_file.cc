// Sessions on disk; edgellm/_native.pyi says what each member means.
#include "bindings.h"

namespace edgellm::bindings {

void save_session(const Session& session, const py::object& path, const py::bytes& note) {
  const std::string text = path_text(path);
  const std::string_view bytes = note;  // which Python keeps while the call has it
  const py::gil_scoped_release unlocked;
  session.save(text, bytes);
}

py::dict session_identity(const Session& session) {
  edgellm::Metadata identity;
  {
    const py::gil_scoped_release unlocked;
    identity = session.identity();
  }
  return to_dict(identity);
}

void bind_session_file(py::module_& m) {
  py::class_<SessionFile>(m, "SessionFile")
      .def_static(
          "open",
          [](const py::object& path) {
            const std::string text = path_text(path);
            const py::gil_scoped_release unlocked;
            return SessionFile::open(text);
          },
          py::arg("path"))
      .def_property_readonly("note", [](const SessionFile& file) { return py::bytes(file.note()); })
      .def_property_readonly("token_ids", &SessionFile::token_ids)
      .def_property_readonly("n_kv_tokens", &SessionFile::n_kv_tokens)
      .def_property_readonly("identity",
                             [](const SessionFile& file) { return to_dict(file.identity()); });
}

}  // namespace edgellm::bindings
