// c_api.h: the library, models, files and the machine.
#include <array>
#include <optional>

#include "api/c_support.h"

namespace {

using edge::Code;
using edge::api::raise;
using edge::capi::check_buffer;
using edge::capi::copy_name;
using edge::capi::guarded;
using edge::capi::input;
using edge::capi::path_input;
using edge::capi::read_struct;
using edge::capi::refuse;
using edge::capi::required;
using edge::capi::text_input;
using edge::capi::write_out;
using edge::capi::write_struct;
using edge::capi::write_text;

struct NumberedCode {
  edgellm_status number;
  std::string_view name;
};

constexpr NumberedCode kNumbers[] = {
#define EDGE_C_CODE(number, name) {number, name},
#include "api/c_codes.inc"
#undef EDGE_C_CODE
};

constexpr std::string_view kCodeNames[] = {
#define EDGE_ERROR(name, py_class, text) text,
#include "base/errors.inc"
#undef EDGE_ERROR
};

constexpr const char* kClassNames[] = {
#define EDGE_ERROR(name, py_class, text) #py_class,
#include "base/errors.inc"
#undef EDGE_ERROR
};

constexpr edgellm_status number_of(std::string_view code) {
  for (const NumberedCode& row : kNumbers) {
    if (row.name == code) return row.number;
  }
  return 0;
}

constexpr bool all_have_numbers() {
  for (const std::string_view code : kCodeNames) {
    if (number_of(code) == 0) return false;
  }
  return true;
}
static_assert(all_have_numbers(), "errors.inc has grown: run python native/tools/c_codes.py");

constexpr const char* kNoMemoryForMessage = "the system has no more memory";

struct LastError {
  std::string message;
  bool is_lost = false;  // there was no memory to keep the message
};

LastError& last_error() {
  static thread_local LastError error;
  return error;
}

const edgellm::Model& opened(const edgellm_model* handle) {
  const edgellm::Model& model = required(handle, "model").model;
  if (model.is_closed()) refuse("the model is closed");
  return model;
}

edgellm::Verify verify_of(int32_t verify) {
  switch (verify) {
    case EDGELLM_VERIFY_ONCE:
      return edgellm::Verify::kOnce;
    case EDGELLM_VERIFY_ALWAYS:
      return edgellm::Verify::kAlways;
    case EDGELLM_VERIFY_NEVER:
      return edgellm::Verify::kNever;
    default:
      refuse("options->verify is " + std::to_string(verify) + "; it must be EDGELLM_VERIFY_...");
  }
}

std::string kv_format_of(int32_t format) {
  switch (format) {
    case EDGELLM_KV_DEFAULT:
      return edgellm::LoadOptions{}.kv_format;
    case EDGELLM_KV_F16:
      return "F16";
    case EDGELLM_KV_K8V8:
      return "K8V8";
    case EDGELLM_KV_K8V4:
      return "K8V4";
    case EDGELLM_KV_K6V4:
      return "K6V4";
    default:
      refuse("options->kv_format is " + std::to_string(format) + "; it must be EDGELLM_KV_...");
  }
}

std::string backend_of(int64_t backend) {
  switch (backend) {
    case EDGELLM_BACKEND_DEFAULT:
    case EDGELLM_BACKEND_CPU:
      return "cpu";
    case EDGELLM_BACKEND_CUDA:
      return "cuda";
    case EDGELLM_BACKEND_METAL:
      return "metal";
    case EDGELLM_BACKEND_NPU:
      return "npu";
    case EDGELLM_BACKEND_CUDA_FP8:
      return "cuda-fp8";
    case EDGELLM_BACKEND_VULKAN:
      return "vulkan";
    default:
      refuse("options->backend is " + std::to_string(backend) + "; it must be EDGELLM_BACKEND_...");
  }
}

edgellm::Speculate speculate_of(int64_t speculate) {
  switch (speculate) {
    case EDGELLM_SPECULATE_DEFAULT:
      return edgellm::LoadOptions{}.speculate;
    case EDGELLM_SPECULATE_OFF:
      return edgellm::Speculate::kOff;
    case EDGELLM_SPECULATE_AUTO:
      return edgellm::Speculate::kAuto;
    case EDGELLM_SPECULATE_ON:
      return edgellm::Speculate::kOn;
    case EDGELLM_SPECULATE_ALWAYS:
      return edgellm::Speculate::kAlways;
    default:
      refuse("options->speculate is " + std::to_string(speculate) +
             "; it must be EDGELLM_SPECULATE_...");
  }
}

int draft_layers_of(int64_t n) {
  if (n >= 0 && n <= INT32_MAX) return static_cast<int>(n);
  refuse("options->draft_layers is " + std::to_string(n) + "; it must be 0 or more");
}

// An empty text would ask for nothing.
std::string digest_of(const char* digits, size_t n_bytes) {
  const std::string_view text = text_input(digits, n_bytes, "options->header_sha256");
  if (text.size() == 64) return std::string(text);
  refuse("options->header_sha256 has " + std::to_string(text.size()) +
         " bytes; it must be 64 hex digits, or NULL");
}

edgellm::Metadata npu_of(const edgellm_load_options& options) {
  edgellm::Metadata settings;
  for (const edgellm_setting& one : input(options.npu, options.n_npu, "options->npu")) {
    settings.emplace_back(text_input(one.name, one.n_name_bytes, "options->npu: a name"),
                          text_input(one.value, one.n_value_bytes, "options->npu: a value"));
  }
  return settings;
}

uint64_t prefix_cache_of(uint64_t n_bytes) {
  if (n_bytes == EDGELLM_NO_PREFIX_CACHE) return 0;
  return n_bytes == 0 ? edgellm::LoadOptions{}.prefix_cache_bytes : n_bytes;
}

edgellm::LoadOptions load_options(const edgellm_load_options* given) {
  const edgellm_load_options options =
      read_struct(given, edgellm_load_options EDGELLM_LOAD_OPTIONS_INIT, "options");
  edgellm::LoadOptions out{.n_threads = options.n_threads,
                           .verify = verify_of(options.verify),
                           .max_memory_bytes = options.max_memory_bytes,
                           .n_ctx = options.n_ctx,
                           .latency_budget_ms = options.latency_budget_ms,
                           .prefix_cache_bytes = prefix_cache_of(options.prefix_cache_bytes),
                           .kv_format = kv_format_of(options.kv_format)};
  if (options.n_kv_cache_dir_bytes > 0) {
    out.kv_cache_dir = path_input(options.kv_cache_dir, options.n_kv_cache_dir_bytes);
  }
  out.speculate = speculate_of(options.speculate);
  out.backend = backend_of(options.backend);
  out.npu = npu_of(options);
  if (options.backend == EDGELLM_BACKEND_NPU && options.kv_format == EDGELLM_KV_DEFAULT) {
    out.kv_format = "F16";  // what graphs compute with
  }
  if (options.draft_model != nullptr) {
    out.draft_model = std::make_shared<const edgellm::Model>(options.draft_model->model);
  }
  out.draft_layers = draft_layers_of(options.draft_layers);
  if (options.header_sha256 != nullptr) {
    out.header_sha256 = digest_of(options.header_sha256, options.n_header_sha256_bytes);
  }
  if (options.kv_cache_disk_bytes > 0) out.kv_cache_disk_bytes = options.kv_cache_disk_bytes;
  return out;
}

}  // namespace

edgellm_status edge::capi::fail(std::string_view code, std::string_view message) noexcept {
  LastError& error = last_error();
  try {
    error.message = edgellm::sanitize(message);
    error.is_lost = false;
  } catch (...) {
    error.is_lost = true;
  }
  return number_of(code);
}

uint32_t edgellm_abi_version(void) { return EDGELLM_ABI_VERSION; }

const char* edgellm_version(void) { return EDGELLM_VERSION; }

const char* edgellm_status_name(edgellm_status status) {
  if (status == EDGELLM_OK) return "ok";
  for (const NumberedCode& row : kNumbers) {
    if (row.number == status) return row.name.data();
  }
  return "unknown";
}

const char* edgellm_status_class(edgellm_status status) {
  if (status == EDGELLM_OK) return "";
  const std::string_view name = edgellm_status_name(status);
  for (size_t i = 0; i < std::size(kCodeNames); ++i) {
    if (kCodeNames[i] == name) return kClassNames[i];
  }
  return "EdgeError";
}

const char* edgellm_last_error(size_t* n_bytes) {
  const LastError& error = last_error();
  const char* message = error.is_lost ? kNoMemoryForMessage : error.message.c_str();
  if (n_bytes != nullptr) *n_bytes = std::strlen(message);
  return message;
}

edgellm_status edgellm_model_load(const char* path, size_t n_path_bytes,
                                  const edgellm_load_options* options, edgellm_model** model) {
  return guarded([&] {
    required(model, "model");
    *model = new edgellm_model{
        edgellm::Model::load(path_input(path, n_path_bytes), load_options(options))};
  });
}

edgellm_status edgellm_model_get_info(const edgellm_model* model, edgellm_model_info* info) {
  return guarded([&] {
    const edgellm::Model& from = opened(model);
    const edgellm::ModelInfo& facts = from.info();
    edgellm_model_info out = EDGELLM_MODEL_INFO_INIT;
    out.n_vocab = facts.n_vocab;
    out.n_ctx_train = facts.n_ctx_train;
    out.bos_id = facts.bos_id;
    out.n_eos_ids = static_cast<int32_t>(facts.eos_ids.size());
    out.n_threads = facts.n_threads;
    out.has_tokenizer = from.tokenizer().has_value() ? 1 : 0;
    out.kv_bytes_per_token = facts.kv_bytes_per_token;
    out.scratch_bytes = facts.scratch_bytes;
    out.file_bytes = facts.file_bytes;
    out.load_ms = facts.load_ms;
    copy_name(facts.root, out.root);
    copy_name(facts.backend, out.backend);
    copy_name(facts.kv_format, out.kv_format);
    out.session_bytes = facts.session_bytes;
    out.n_graph_tokens = facts.n_graph_tokens;
    write_struct(out, info, "info");
  });
}

edgellm_status edgellm_model_kv_bytes(const edgellm_model* model, int32_t n_ctx,
                                      uint64_t* kv_bytes) {
  return guarded([&] {
    required(kv_bytes, "kv_bytes");
    *kv_bytes = opened(model).kv_bytes(n_ctx);
  });
}

edgellm_status edgellm_model_eos_ids(const edgellm_model* model, int32_t* ids, size_t capacity,
                                     size_t* n_needed) {
  return guarded([&] {
    check_buffer(ids, capacity, n_needed);
    write_out(std::span(opened(model).info().eos_ids), ids, capacity, n_needed);
  });
}

edgellm_status edgellm_model_spec_json(const edgellm_model* model, char* buffer, size_t capacity,
                                       size_t* n_needed) {
  return guarded([&] {
    check_buffer(buffer, capacity, n_needed);
    write_text(opened(model).info().spec_json, buffer, capacity, n_needed);
  });
}

edgellm_status edgellm_model_metadata(const edgellm_model* model, const char* key,
                                      size_t n_key_bytes, char* buffer, size_t capacity,
                                      size_t* n_needed) {
  return guarded([&] {
    check_buffer(buffer, capacity, n_needed);
    const std::string_view wanted = text_input(key, n_key_bytes, "key");
    for (const auto& [name, value] : opened(model).info().metadata) {
      if (name == wanted) {
        write_text(value, buffer, capacity, n_needed);
        return;
      }
    }
    raise(Code::kJsonMissingKey,
          "the file has no metadata '" + std::string(wanted.substr(0, 80)) + "'");
  });
}

edgellm_status edgellm_model_blob(const edgellm_model* model, const char* name, size_t n_name_bytes,
                                  void* buffer, size_t capacity, size_t* n_needed) {
  return guarded([&] {
    check_buffer(static_cast<const char*>(buffer), capacity, n_needed);
    const std::string_view wanted = text_input(name, n_name_bytes, "name");
    const std::optional<std::string> blob = opened(model).blob(wanted);
    if (!blob) {
      raise(Code::kTensorMissing,
            "the file has no blob '" + std::string(wanted.substr(0, 80)) + "'");
    }
    write_text(*blob, buffer, capacity, n_needed);
  });
}

edgellm_status edgellm_model_verified_fraction(const edgellm_model* model, double* fraction) {
  return guarded([&] {
    required(fraction, "fraction");
    *fraction = opened(model).verified_fraction();
  });
}

edgellm_status edgellm_model_tokenizer(const edgellm_model* model, edgellm_tokenizer** tokenizer) {
  return guarded([&] {
    required(tokenizer, "tokenizer");
    std::optional<edgellm::Tokenizer> found = opened(model).tokenizer();
    if (!found) {
      raise(Code::kTokenizerUnsupported,
            "the file holds no tokenizer; give token ids instead of text");
    }
    *tokenizer = new edgellm_tokenizer{std::move(*found)};
  });
}

edgellm_status edgellm_model_close(edgellm_model* model) {
  return guarded([&] { required(model, "model").model.close(); });
}

void edgellm_model_free(edgellm_model* model) { delete model; }

edgellm_status edgellm_verify_file(const char* path, size_t n_path_bytes, int32_t n_threads,
                                   edgellm_verify_result* result) {
  return guarded([&] {
    if (n_threads < 0) refuse("n_threads is negative; it must be 0 (default) or more");
    if (result != nullptr) edge::capi::checked_struct_size(*result, "result");
    const edgellm::VerifyResult facts =
        edgellm::verify_file(path_input(path, n_path_bytes), n_threads);
    if (result == nullptr) return;
    edgellm_verify_result out = EDGELLM_VERIFY_RESULT_INIT;
    out.file_bytes = facts.file_bytes;
    out.n_leaves = facts.n_leaves;
    out.verify_ms = facts.verify_ms;
    copy_name(facts.root, out.root);
    write_struct(out, result, "result");
  });
}

edgellm_status edgellm_machine_get_facts(edgellm_machine_facts* facts) {
  return guarded([&] {
    const edgellm::MemoryFigures memory = edgellm::memory_figures();
    edgellm_machine_facts out = EDGELLM_MACHINE_FACTS_INIT;
    out.default_n_threads = edgellm::default_n_threads();
    out.n_isa_levels = static_cast<int32_t>(edgellm::isa_levels().size());
    out.total_bytes = memory.total_bytes;
    out.available_bytes = memory.available_bytes;
    out.rss_bytes = memory.rss_bytes;
    out.peak_rss_bytes = memory.peak_rss_bytes;
    write_struct(out, facts, "facts");
  });
}

edgellm_status edgellm_active_isa(char* buffer, size_t capacity, size_t* n_needed) {
  return guarded([&] {
    check_buffer(buffer, capacity, n_needed);
    write_text(edgellm::active_isa(), buffer, capacity, n_needed);
  });
}

edgellm_status edgellm_isa_level(int32_t index, char* buffer, size_t capacity, size_t* n_needed) {
  return guarded([&] {
    check_buffer(buffer, capacity, n_needed);
    const std::vector<std::string> levels = edgellm::isa_levels();
    if (index < 0 || static_cast<size_t>(index) >= levels.size()) {
      refuse("index is " + std::to_string(index) + "; there are " + std::to_string(levels.size()) +
             " instruction sets, counted from 0");
    }
    write_text(levels[static_cast<size_t>(index)], buffer, capacity, n_needed);
  });
}
