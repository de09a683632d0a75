// edgellm._native: conversion of arguments and results, the GIL, and nothing else. What the
// functions mean stands in edgellm/_native.pyi; a test compares the two.
//
// Only functions that take or return arrays touch numpy, so importing the module does not load it.
#include "bindings.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace py = pybind11;
using py::literals::operator""_a;
using edgellm::EdgeFile;
using edgellm::Model;
using edgellm::Session;
using edgellm::StreamDecoder;
using edgellm::Tokenizer;
using edgellm::bindings::interruptible;
using edgellm::bindings::path_text;
using edgellm::bindings::to_array;
using edgellm::bindings::to_dict;
using edgellm::bindings::to_ids;
using edgellm::bindings::utf8_of;

namespace {

using Unlocked = py::call_guard<py::gil_scoped_release>;
using F32Array = py::array_t<float, py::array::c_style>;

py::bytes to_bytes(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<py::dict> tensor_dicts(const EdgeFile& file) {
  std::vector<py::dict> dicts;
  for (const edgellm::TensorInfo& tensor : file.tensors()) {
    dicts.push_back(py::dict("name"_a = tensor.name, "role"_a = tensor.role,
                             "format"_a = tensor.format, "act"_a = tensor.act,
                             "n_rows"_a = tensor.n_rows, "n_cols"_a = tensor.n_cols,
                             "offset"_a = tensor.offset, "n_bytes"_a = tensor.n_bytes));
  }
  return dicts;
}

py::array encode_tensor(const std::string& format, const py::object& weights_in,
                        const py::object& importance_in, int n_threads) {
  const F32Array weights = F32Array::ensure(weights_in);
  if (!weights) throw py::error_already_set();
  if (weights.ndim() != 2) throw py::value_error("weights must have two dimensions");
  F32Array importance;
  if (!importance_in.is_none()) {
    importance = F32Array::ensure(importance_in);
    if (!importance) throw py::error_already_set();
    if (importance.ndim() != 1) throw py::value_error("importance must have one dimension");
  }
  const std::span<const float> values(weights.data(), static_cast<size_t>(weights.size()));
  std::span<const float> column_weights;
  if (!importance_in.is_none()) {
    column_weights = {importance.data(), static_cast<size_t>(importance.size())};
    if (column_weights.empty()) throw py::value_error("importance is empty");
  }
  std::vector<std::byte> bytes;
  {
    const py::gil_scoped_release unlocked;
    bytes = edgellm::encode_tensor(format, values, weights.shape(0), weights.shape(1),
                                   column_weights, n_threads);
  }
  const py::ssize_t n_bytes = static_cast<py::ssize_t>(bytes.size());
  return to_array<uint8_t>(std::move(bytes), {n_bytes});
}

py::array decode_rows(const std::string& format, const py::buffer& data, int64_t n_rows,
                      int64_t n_cols, int64_t row0, int64_t n) {
  const py::buffer_info info = data.request();
  if (!PyBuffer_IsContiguous(info.view(), 'C')) throw py::value_error("data is not contiguous");
  const std::span<const std::byte> bytes(static_cast<const std::byte*>(info.ptr),
                                         static_cast<size_t>(info.size * info.itemsize));
  std::vector<float> out;
  {
    const py::gil_scoped_release unlocked;
    out = edgellm::decode_rows(format, bytes, n_rows, n_cols, row0, n);
  }
  return to_array<float>(std::move(out), {n, n_cols});
}

edgellm::Verify verify_from(const std::string& name) {
  if (name == "once") return edgellm::Verify::kOnce;
  if (name == "always") return edgellm::Verify::kAlways;
  if (name == "never") return edgellm::Verify::kNever;
  throw edgellm::Error("invalid_argument", "InvalidArgumentError",
                       "verify must be 'once', 'always' or 'never'");
}

constexpr std::array<const char*, 4> kSpeculate = {"off", "auto", "on", "always"};

edgellm::Speculate speculate_from(const std::string& name) {
  const auto found = std::find(kSpeculate.begin(), kSpeculate.end(), name);
  if (found != kSpeculate.end()) {
    return static_cast<edgellm::Speculate>(found - kSpeculate.begin());
  }
  throw edgellm::Error("invalid_argument", "InvalidArgumentError",
                       "speculate must be 'off', 'auto', 'on' or 'always'");
}

Model load(const py::object& path, int n_threads, const std::string& verify,
           uint64_t max_memory_bytes, int n_ctx, double latency_budget_ms,
           std::optional<uint64_t> prefix_cache_bytes, const std::string& kv_format,
           const py::object& kv_cache_dir, uint64_t kv_cache_disk_bytes,
           const std::string& speculate, const std::optional<Model>& draft_model, int draft_layers,
           const std::string& backend, const edgellm::Metadata& npu,
           const std::string& header_sha256) {
  const std::string text = path_text(path);
  const edgellm::LoadOptions options{
      .n_threads = n_threads,
      .verify = verify_from(verify),
      .max_memory_bytes = max_memory_bytes,
      .n_ctx = n_ctx,
      .latency_budget_ms = latency_budget_ms,
      .prefix_cache_bytes = prefix_cache_bytes.value_or(UINT64_MAX),
      .kv_format = kv_format,
      .kv_cache_dir = kv_cache_dir.is_none() ? "" : path_text(kv_cache_dir),
      .kv_cache_disk_bytes = kv_cache_disk_bytes,
      .speculate = speculate_from(speculate),
      .draft_model = draft_model ? std::make_shared<const Model>(*draft_model) : nullptr,
      .draft_layers = draft_layers,
      .backend = backend,
      .npu = npu,
      .header_sha256 = header_sha256};
  const py::gil_scoped_release unlocked;
  return Model::load(text, options);
}

py::dict kv_dict(const Model& model) {
  const edgellm::KvFigures figures = model.kv_figures();
  return py::dict(
      "budget_bytes"_a = figures.budget_bytes, "reserved_bytes"_a = figures.reserved_bytes,
      "session_bytes"_a = figures.session_bytes, "kept_bytes"_a = figures.kept_bytes,
      "idle_bytes"_a = figures.idle_bytes, "used_bytes"_a = figures.used_bytes,
      "n_reused_tokens"_a = figures.n_reused_tokens,
      "n_evicted_tokens"_a = figures.n_evicted_tokens, "disk_bytes"_a = figures.disk_bytes,
      "n_disk_written_tokens"_a = figures.n_disk_written_tokens,
      "n_disk_read_tokens"_a = figures.n_disk_read_tokens,
      "n_disk_damaged_files"_a = figures.n_disk_damaged_files,
      "n_disk_failed_writes"_a = figures.n_disk_failed_writes);
}

// Gives the parts of ModelInfo as properties.
template <class T>
auto info(T edgellm::ModelInfo::* field) {
  return [field](const Model& model) { return model.info().*field; };
}

bool run(Session& session, double budget_ms) {
  const py::gil_scoped_release unlocked;
  return interruptible([&](const auto& poll) { return session.run(budget_ms, poll); });
}

// body(stop check) runs and gives n_cols floats for each token it processed.
template <class F>
py::array run_with_rows(py::ssize_t n_cols, F&& body) {
  std::vector<float> rows;
  {
    const py::gil_scoped_release unlocked;
    rows = interruptible(body);
  }
  const py::ssize_t n_rows = static_cast<py::ssize_t>(rows.size()) / n_cols;
  return to_array<float>(std::move(rows), {n_rows, n_cols});
}

py::array run_with_logits(Session& session, double budget_ms) {
  return run_with_rows(session.n_vocab(),
                       [&](const auto& poll) { return session.run_with_logits(budget_ms, poll); });
}

py::array run_with_hidden(Session& session, double budget_ms) {
  return run_with_rows(session.d_model(),
                       [&](const auto& poll) { return session.run_with_hidden(budget_ms, poll); });
}

py::array last_logits(const Session& session) {
  std::vector<float> logits;
  {
    const py::gil_scoped_release unlocked;
    logits = session.logits();
  }
  const py::ssize_t n_vocab = static_cast<py::ssize_t>(logits.size());
  return to_array<float>(std::move(logits), {n_vocab});
}

std::pair<int32_t, double> sample(const Session& session, const edgellm::SamplerParams& params,
                                  std::optional<int64_t> step, std::optional<int64_t> n_prompt,
                                  const edgellm::bindings::AllowedIds& allowed) {
  if (step && *step < 0) throw py::value_error("step must be 0 or more");
  if (n_prompt && *n_prompt < 0) throw py::value_error("n_prompt must be 0 or more");
  const std::span<const uint32_t> words = edgellm::bindings::words_of(allowed);
  const py::gil_scoped_release unlocked;
  const edgellm::SampledToken token =
      session.sample(params, step.value_or(-1), n_prompt.value_or(-1), words);
  return {token.id, token.logprob};
}

std::vector<std::pair<int32_t, double>> top_logprobs(const Session& session, int64_t k) {
  std::vector<std::pair<int32_t, double>> best;
  for (const edgellm::SampledToken& token : session.top_logprobs(k)) {
    best.emplace_back(token.id, token.logprob);
  }
  return best;
}

py::dict stats_dict(const edgellm::SessionStats& stats) {
  py::dict drafters;
  for (const edgellm::DrafterStats& drafter : stats.drafters) {
    drafters[py::str(drafter.name)] = py::make_tuple(drafter.n_drafted, drafter.n_accepted);
  }
  return py::dict(
      "n_prefill_tokens"_a = stats.n_prefill_tokens, "n_decode_tokens"_a = stats.n_decode_tokens,
      "n_steps"_a = stats.n_steps, "n_reused_tokens"_a = stats.n_reused_tokens,
      "n_disk_tokens"_a = stats.n_disk_tokens, "n_recomputed_tokens"_a = stats.n_recomputed_tokens,
      "prefill_ms"_a = stats.prefill_ms, "decode_ms"_a = stats.decode_ms,
      "kv_bytes"_a = stats.kv_bytes, "is_speculating"_a = stats.is_speculating,
      "drafters"_a = drafters, "saved_ms"_a = stats.saved_ms,
      "n_capped_steps"_a = stats.n_capped_steps);
}

void bind_machine(py::module_& m) {
  m.def("version", [] { return EDGELLM_VERSION; });
  m.def("isa_levels", &edgellm::isa_levels);
  m.def("active_isa", &edgellm::active_isa);
  m.def("default_n_threads", &edgellm::default_n_threads);
  m.def("memory_figures", [] {
    const edgellm::MemoryFigures figures = edgellm::memory_figures();
    return py::dict("total_bytes"_a = figures.total_bytes,
                    "available_bytes"_a = figures.available_bytes,
                    "rss_bytes"_a = figures.rss_bytes, "peak_rss_bytes"_a = figures.peak_rss_bytes);
  });
  m.def("format_table", [] {
    py::list table;
    for (const edgellm::FormatInfo& format : edgellm::format_table()) {
      table.append(
          py::make_tuple(format.name, format.group_k, format.tile_bytes, format.head_bytes));
    }
    return table;
  });
  m.def("error_table", &edgellm::error_table);
  m.def("measure_read_bandwidth", &edgellm::measure_read_bandwidth, py::arg("n_threads") = 0,
        Unlocked());
  m.def("measure_int8_peak", &edgellm::measure_int8_peak, py::arg("n_threads") = 0, Unlocked());
  m.def("encode_tensor", &encode_tensor, py::arg("format"), py::arg("weights"),
        py::arg("importance") = py::none(), py::arg("n_threads") = 0);
  m.def("decode_rows", &decode_rows, py::arg("format"), py::arg("data"), py::arg("n_rows"),
        py::arg("n_cols"), py::arg("row0"), py::arg("n"));
}

void bind_files(py::module_& m) {
  py::class_<EdgeFile>(m, "EdgeFile")
      .def(py::init([](const py::object& path) {
             const std::string text = path_text(path);
             const py::gil_scoped_release unlocked;
             return EdgeFile(text);
           }),
           py::arg("path"))
      .def_property_readonly("metadata",
                             [](const EdgeFile& file) { return to_dict(file.metadata()); })
      .def_property_readonly("tensors", &tensor_dicts)
      .def_property_readonly("root", &EdgeFile::root)
      .def_property_readonly("file_bytes", &EdgeFile::file_bytes)
      .def_property_readonly("data_start", &EdgeFile::data_start)
      .def(
          "read",
          [](const EdgeFile& file, const std::string& name) -> std::optional<py::bytes> {
            const auto bytes = file.find(name);
            if (!bytes) return std::nullopt;
            return to_bytes(*bytes);
          },
          py::arg("name"));
  m.def(
      "verify_file",
      [](const py::object& path, int n_threads) {
        const std::string text = path_text(path);
        edgellm::VerifyResult result;
        {
          const py::gil_scoped_release unlocked;
          result = edgellm::verify_file(text, n_threads);
        }
        return py::dict("root"_a = result.root, "file_bytes"_a = result.file_bytes,
                        "n_leaves"_a = result.n_leaves, "verify_ms"_a = result.verify_ms);
      },
      py::arg("path"), py::arg("n_threads") = 0);
}

void bind_text(py::module_& m) {
  py::class_<Tokenizer>(m, "Tokenizer")
      .def_static(
          "from_blob", [](const py::bytes& blob) { return Tokenizer::from_blob(blob); },
          py::arg("blob"))
      .def(
          "encode",
          [](const Tokenizer& tokenizer, const py::str& text, bool special, bool bos) {
            const std::string_view bytes = utf8_of(text);
            const py::gil_scoped_release unlocked;
            return tokenizer.encode(bytes, special, bos);
          },
          py::arg("text"), py::arg("special") = false, py::arg("bos") = true)
      .def(
          "decode",
          [](const Tokenizer& tokenizer, const std::vector<int64_t>& ids, bool special) {
            return tokenizer.decode(to_ids(ids), special);
          },
          py::arg("ids"), py::arg("special") = false, Unlocked())
      .def("token_text", &Tokenizer::token_text, py::arg("id"))
      .def(
          "token_bytes",
          [](const Tokenizer& tokenizer, int32_t id) {
            return py::bytes(tokenizer.token_bytes(id));
          },
          py::arg("id"))
      .def("is_special", &Tokenizer::is_special, py::arg("id"))
      .def_property_readonly("n_vocab", &Tokenizer::n_vocab);
  py::class_<StreamDecoder>(m, "StreamDecoder")
      .def(py::init<const Tokenizer&, bool>(), py::arg("tokenizer"), py::arg("special") = false)
      .def("push", &StreamDecoder::push, py::arg("id"))
      .def("flush", &StreamDecoder::flush);
}

void bind_model(py::module_& m) {
  py::class_<Model>(m, "Model")
      .def_static(
          "load", &load, py::arg("path"), py::kw_only(), py::arg("n_threads") = 0,
          py::arg("verify") = "once", py::arg("max_memory_bytes") = 0, py::arg("n_ctx") = 0,
          py::arg("latency_budget_ms") = 0.0, py::arg("prefix_cache_bytes") = py::none(),
          py::arg("kv_format") = edgellm::LoadOptions{}.kv_format,
          py::arg("kv_cache_dir") = py::none(),
          py::arg("kv_cache_disk_bytes") = edgellm::LoadOptions{}.kv_cache_disk_bytes,
          py::arg("speculate") = kSpeculate[static_cast<size_t>(edgellm::LoadOptions{}.speculate)],
          py::arg("draft_model") = py::none(), py::arg("draft_layers") = 0,
          py::arg("backend") = "cpu", py::arg("npu") = edgellm::Metadata{},
          py::arg("header_sha256") = "")
      .def("close", &Model::close, Unlocked())
      .def_property_readonly("closed", &Model::is_closed)
      .def_property_readonly("spec_json", info(&edgellm::ModelInfo::spec_json))
      .def_property_readonly("tokenizer", py::cpp_function(&Model::tokenizer, Unlocked()))
      .def_property_readonly("metadata",
                             [](const Model& model) { return to_dict(model.info().metadata); })
      .def(
          "blob",
          [](const Model& model, const std::string& name) -> std::optional<py::bytes> {
            std::optional<std::string> bytes;
            {
              const py::gil_scoped_release unlocked;
              bytes = model.blob(name);
            }
            if (!bytes) return std::nullopt;
            return py::bytes(*bytes);
          },
          py::arg("name"))
      .def_property_readonly("root", info(&edgellm::ModelInfo::root))
      .def_property_readonly("n_vocab", info(&edgellm::ModelInfo::n_vocab))
      .def_property_readonly("d_model", info(&edgellm::ModelInfo::d_model))
      .def_property_readonly("n_ctx_train", info(&edgellm::ModelInfo::n_ctx_train))
      .def_property_readonly("bos_id",
                             [](const Model& model) -> std::optional<int32_t> {
                               const int32_t id = model.info().bos_id;
                               return id < 0 ? std::nullopt : std::optional(id);
                             })
      .def_property_readonly("eos_ids", info(&edgellm::ModelInfo::eos_ids))
      .def_property_readonly("kv_format", info(&edgellm::ModelInfo::kv_format))
      .def_property_readonly("kv_bytes_per_token", info(&edgellm::ModelInfo::kv_bytes_per_token))
      .def_property_readonly("kv_groups",
                             [](const Model& model) {
                               std::vector<std::tuple<int, uint64_t, uint64_t>> groups;
                               for (const edgellm::KvGroup& group : model.info().kv_groups) {
                                 groups.emplace_back(group.window, group.bytes_per_token,
                                                     group.first_extra);
                               }
                               return groups;
                             })
      .def("kv_bytes", &Model::kv_bytes, py::arg("n_ctx") = 0)
      .def_property_readonly("session_bytes", info(&edgellm::ModelInfo::session_bytes))
      .def_property_readonly("scratch_bytes", info(&edgellm::ModelInfo::scratch_bytes))
      .def_property_readonly("file_bytes", info(&edgellm::ModelInfo::file_bytes))
      .def_property_readonly("load_ms", info(&edgellm::ModelInfo::load_ms))
      .def_property_readonly("verified_fraction",
                             py::cpp_function(&Model::verified_fraction, Unlocked()))
      .def_property_readonly("kv_figures", [](const Model& model) { return kv_dict(model); })
      .def("trim", &Model::trim, py::arg("n_bytes") = UINT64_MAX, Unlocked())
      .def_property_readonly("expert_load", py::cpp_function(&Model::expert_load, Unlocked()))
      .def_property_readonly("n_threads", info(&edgellm::ModelInfo::n_threads))
      .def_property_readonly("backend", info(&edgellm::ModelInfo::backend))
      .def_property_readonly("host_layers", info(&edgellm::ModelInfo::n_host_layers))
      .def_property_readonly("graph_tokens", info(&edgellm::ModelInfo::n_graph_tokens));
}

void bind_session(py::module_& m) {
  const auto getter = [](auto method) { return py::cpp_function(method, Unlocked()); };
  py::class_<Session> type(m, "Session");
  edgellm::bindings::bind_long_context(type);
  type.def(
          py::init([](const Model& model, int n_ctx, const std::optional<edgellm::Adapter>& adapter,
                      bool reuse_prefix, const std::string& name_space) {
            return Session(model, n_ctx, adapter, {reuse_prefix, name_space});
          }),
          py::arg("model"), py::arg("n_ctx") = 0, py::arg("adapter") = py::none(), py::kw_only(),
          py::arg("reuse_prefix") = true, py::arg("namespace") = "", Unlocked())
      .def("fork", &Session::fork, Unlocked())
      .def_property_readonly("n_ctx", getter(&Session::n_ctx))
      .def_property_readonly("n_tokens", getter(&Session::n_tokens))
      .def_property_readonly("pending", getter(&Session::n_pending))
      .def_property_readonly("n_recompute", getter(&Session::n_recompute))
      .def_property_readonly("token_ids", getter(&Session::token_ids))
      .def(
          "append",
          [](Session& session, const std::vector<int64_t>& ids) { session.append(to_ids(ids)); },
          py::arg("ids"), Unlocked())
      .def("run", &run, py::arg("budget_ms") = 80.0)
      .def("run_with_logits", &run_with_logits, py::arg("budget_ms") = 80.0)
      .def("run_with_hidden", &run_with_hidden, py::arg("budget_ms") = 80.0)
      .def("rewind", &Session::rewind, py::arg("n_tokens"), Unlocked())
      .def("set_priority", &Session::set_priority, py::arg("priority"), Unlocked())
      .def("set_speculation", &Session::set_speculation, py::arg("is_on"), Unlocked())
      .def("set_adapter", &Session::set_adapter, py::arg("adapter"), Unlocked())
      .def("logits", &last_logits)
      .def("sample", &sample, py::arg("params"), py::arg("step") = py::none(),
           py::arg("n_prompt") = py::none(), py::arg("allowed") = py::none())
      .def("top_logprobs", &top_logprobs, py::arg("k"), Unlocked())
      .def("cancel", &Session::cancel)
      .def("save", &edgellm::bindings::save_session, py::arg("path"), py::arg("note") = py::bytes())
      .def("restore", &Session::restore, py::arg("file"), Unlocked())
      .def_property_readonly("identity", &edgellm::bindings::session_identity)
      .def_property_readonly("stats",
                             [](const Session& session) {
                               edgellm::SessionStats stats;
                               {
                                 const py::gil_scoped_release unlocked;
                                 stats = session.stats();
                               }
                               return stats_dict(stats);
                             })
      .def("close", &Session::close, Unlocked());
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const edgellm::Error& typed) {
      const py::object raised = edgellm::bindings::to_exception(typed);
      py::set_error(py::type::of(raised), raised);
    }
  });
  bind_machine(m);
  bind_files(m);
  bind_text(m);
  bind_model(m);
  edgellm::bindings::bind_batch(m);
  edgellm::bindings::bind_sampler(m);
  edgellm::bindings::bind_gptq(m);
  edgellm::bindings::bind_adapter(m);
  edgellm::bindings::bind_draft_head(m);
  edgellm::bindings::bind_session_file(m);
  bind_session(m);
}
