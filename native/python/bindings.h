// What the files of the binding share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "edgellm/engine.h"

namespace edgellm::bindings {

namespace py = pybind11;

// Python integers as token ids; what no id can be is refused as such.
inline std::vector<int32_t> to_ids(const std::vector<int64_t>& values) {
  std::vector<int32_t> ids;
  ids.reserve(values.size());
  for (const int64_t value : values) {
    if (value < 0 || value > INT32_MAX) {
      throw edgellm::Error("token_out_of_range", "InvalidArgumentError",
                           std::to_string(value) + " is not a token id");
    }
    ids.push_back(static_cast<int32_t>(value));
  }
  return ids;
}

// A text as UTF-8, owned by it. Half of a surrogate pair, which a str may hold, has none.
inline std::string_view utf8_of(const py::str& text) {
  py::ssize_t n_bytes = 0;
  const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &n_bytes);
  if (bytes != nullptr) return {bytes, static_cast<size_t>(n_bytes)};
  py::error_already_set error;
  if (!error.matches(PyExc_UnicodeEncodeError)) throw error;
  const auto at = error.value().attr("start").cast<size_t>();
  throw edgellm::Error("invalid_utf8", "InvalidArgumentError",
                       "text: character " + std::to_string(at) +
                           " is half of a surrogate pair, which UTF-8 cannot hold; replace it");
}

// str(path) and os.PathLike through os.fspath, as UTF-8.
inline std::string path_text(const py::object& path) {
  return py::module_::import("os").attr("fsdecode")(path).cast<std::string>();
}

inline py::dict to_dict(const edgellm::Metadata& metadata) {
  py::dict dict;
  for (const auto& [key, value] : metadata) dict[py::str(key)] = value;
  return dict;
}

// An array that owns the vector it shows.
template <class T, class Element>
py::array to_array(std::vector<Element> values, std::vector<py::ssize_t> shape) {
  auto owner = std::make_unique<std::vector<Element>>(std::move(values));
  const void* data = owner->data();
  const py::capsule base(owner.get(),
                         [](void* p) { delete static_cast<std::vector<Element>*>(p); });
  static_cast<void>(owner.release());
  return py::array(py::dtype::of<T>(), std::move(shape), data, base);
}

// edgellm.errors.<category>(message, code=code).
inline py::object to_exception(const edgellm::Error& error) {
  const py::object type = py::module_::import("edgellm.errors").attr(error.category().c_str());
  const py::str message = py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(error.what(), py::ssize_t(std::strlen(error.what())), "replace"));
  return type(message, py::arg("code") = error.code());
}

// Runs body(stop check), without the GIL. Every 80 ms the check lets Python's signal handlers run
// (in the main thread; elsewhere Python does nothing): what one raises, KeyboardInterrupt above
// all, ends the run and is raised here.
template <class F>
auto interruptible(F&& body) {
  constexpr std::chrono::milliseconds kPeriod{80};
  auto last = std::chrono::steady_clock::now();
  bool was_interrupted = false;
  const auto poll = [&] {
    const auto now = std::chrono::steady_clock::now();
    if (was_interrupted || now - last < kPeriod) return was_interrupted;
    last = now;
    const py::gil_scoped_acquire locked;
    was_interrupted = PyErr_CheckSignals() != 0;
    return was_interrupted;
  };
  const auto raise_interrupt = [&] {
    const py::gil_scoped_acquire locked;
    throw py::error_already_set();
  };
  try {
    auto result = body(poll);
    if (was_interrupted) raise_interrupt();
    return result;
  } catch (const edgellm::Error&) {
    if (!was_interrupted) throw;
    raise_interrupt();
    throw;
  }
}

// Several sessions at once.
void bind_batch(py::module_& m);

// One bit for each id; None: all are allowed.
using AllowedIds = std::optional<py::array_t<uint32_t, py::array::c_style>>;
std::span<const uint32_t> words_of(const AllowedIds& allowed);

// SamplerParams and the sampler on arrays.
void bind_sampler(py::module_& m);

// Adapters of a model.
void bind_adapter(py::module_& m);

// The draft head of a model.
void bind_draft_head(py::module_& m);

// Long contexts in little memory.
void bind_long_context(py::class_<Session>& session);

// Sessions on disk.
void bind_session_file(py::module_& m);
py::dict session_identity(const Session& session);
void save_session(const Session& session, const py::object& path, const py::bytes& note);

// GPTQ's search on arrays.
void bind_gptq(py::module_& m);

}  // namespace edgellm::bindings
