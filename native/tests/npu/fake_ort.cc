// A library with the functions of onnxruntime that the NPU backend calls, and a graph that is no
// ONNX but lines of text:
//   input NAME TYPE DIM...     output NAME TYPE DIM...    TYPE as in OrtApi: 1 f32, 6 i32, 10 f16
//   layer N MASK               whose past and mask it reads
//   fail_open, fail_run, nan
// What it computes is like a decoder in what depends on what, in whole numbers that every format
// holds, so that any two ways to cut a text into steps agree bit for bit.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "base/half.h"

struct OrtStatus {
  std::string message;
};
struct OrtEnv {};
struct OrtAllocator {};
struct OrtMemoryInfo {};
struct OrtRunOptions {};
struct OrtEpDevice {};
struct OrtTensorInfo {
  std::string name;
  bool is_output = false;
  int type = 0;
  std::vector<int64_t> dims;
};
struct OrtTypeInfo {
  const OrtTensorInfo* tensor = nullptr;
};
struct OrtSessionOptions {
  bool has_provider = false;
  bool has_no_fallback = false;
};
struct OrtSession {
  std::vector<OrtTensorInfo> inputs, outputs;
  std::vector<std::pair<int, std::string>> layers;
  std::string trouble;
};
struct OrtValue {
  void* data = nullptr;
  std::vector<int64_t> dims;
  int type = 0;
};
struct OrtIoBinding {
  std::map<std::string, OrtValue> values;
};

namespace {

using PathChar = char;
constexpr const char* kProvider = "GoodProvider";
OrtEnv the_env;
OrtAllocator the_allocator;
OrtMemoryInfo the_memory;
OrtEpDevice the_device;

OrtStatus* failed(const std::string& message) { return new OrtStatus{message}; }

class Tensor {
 public:
  explicit Tensor(const OrtValue& value) : value_(value) {}
  double at(int64_t i) const {
    if (value_.type == 6) return static_cast<const int32_t*>(value_.data)[i];
    if (value_.type == 1) return static_cast<const float*>(value_.data)[i];
    return edge::half_to_float(static_cast<const uint16_t*>(value_.data)[i]);
  }
  void put(int64_t i, double number) const {
    const auto value = static_cast<float>(number);
    if (value_.type == 1) {
      static_cast<float*>(value_.data)[i] = value;
    } else {
      static_cast<uint16_t*>(value_.data)[i] = edge::float_to_half(value);
    }
  }
  int64_t dim(size_t i) const { return value_.dims[i]; }

 private:
  const OrtValue& value_;
};

class Run {
 public:
  Run(const OrtSession& session, const OrtIoBinding& binding)
      : session_(session), binding_(binding), n_rows_(session.inputs.front().dims.front()) {}

  void run() {
    begin();
    for (const auto& [layer, mask] : session_.layers) run_layer(layer, mask);
    if (binding_.values.contains("hidden")) {
      const Tensor hidden = tensor("hidden");
      for (int64_t r = 0; r < n_rows_; ++r)
        hidden.put(r * hidden.dim(1), double(state_[size_t(r)]));
      return;
    }
    const Tensor logits = tensor("logits");
    const bool is_nan = session_.trouble == "nan";
    for (int64_t r = 0; r < n_rows_; ++r) {
      for (int64_t t = 0; t < logits.dim(1); ++t) {
        const int64_t score = (state_[size_t(r)] * (t + 1) * 37 + t * t) % 257;
        logits.put(r * logits.dim(1) + t, is_nan ? std::nan("") : double(score));
      }
    }
  }

 private:
  Tensor tensor(const std::string& name) const { return Tensor(binding_.values.at(name)); }

  void begin() {
    const bool has_ids = binding_.values.contains("ids");
    const Tensor from = tensor(has_ids ? "ids" : "x");
    for (int64_t r = 0; r < n_rows_; ++r) {
      state_.push_back(has_ids ? int64_t(from.at(r)) * 7 + 3 : int64_t(from.at(r * from.dim(1))));
    }
  }

  void run_layer(int layer, const std::string& mask_name) {
    const std::string suffix = "." + std::to_string(layer);
    const Tensor past_k = tensor("past_k" + suffix), past_v = tensor("past_v" + suffix);
    const Tensor new_k = tensor("new_k" + suffix), new_v = tensor("new_v" + suffix);
    const Tensor mask = tensor(mask_name), cos = tensor("cos");
    const int64_t n_heads = past_k.dim(0), n_past = past_k.dim(1), n_dims = past_k.dim(2);
    for (int64_t r = 0; r < n_rows_; ++r) {
      for (int64_t i = 0; i < n_heads * n_dims; ++i) {
        const int64_t h = i / n_dims, d = i % n_dims;
        const auto turn = int64_t(std::lround(4 * cos.at(r * cos.dim(1) + d))) + 4;
        const int64_t to = (h * n_rows_ + r) * n_dims + d;
        new_k.put(to, double((state_[size_t(r)] + 5 * h + d + layer + turn) % 64));
        new_v.put(to, double((state_[size_t(r)] * 3 + h + 2 * d) % 64));
      }
    }
    for (int64_t r = 0; r < n_rows_; ++r) {
      int64_t sum = 0;
      for (int64_t s = 0; s < n_past + n_rows_; ++s) {
        if (mask.at(r * (n_past + n_rows_) + s) != 0) continue;
        for (int64_t i = 0; i < n_heads * n_dims; ++i) {
          const int64_t h = i / n_dims, d = i % n_dims;
          const bool is_past = s < n_past;
          const int64_t at =
              is_past ? (h * n_past + s) * n_dims + d : (h * n_rows_ + s - n_past) * n_dims + d;
          sum += int64_t((is_past ? past_k : new_k).at(at)) * (i + 1);
          sum += int64_t((is_past ? past_v : new_v).at(at)) * (2 * i + 1);
        }
      }
      state_[size_t(r)] = (state_[size_t(r)] * 31 + sum) % 4093;
    }
  }

  const OrtSession& session_;
  const OrtIoBinding& binding_;
  const int64_t n_rows_;
  std::vector<int64_t> state_;
};

// What the table holds, by our names.
const char* get_error_message(const OrtStatus* status) { return status->message.c_str(); }
void release_status(OrtStatus* status) { delete status; }
OrtStatus* create_env(int, const char*, OrtEnv** out) { return *out = &the_env, nullptr; }
OrtStatus* create_cpu_memory(int, int, OrtMemoryInfo** out) { return *out = &the_memory, nullptr; }
OrtStatus* allocator(OrtAllocator** out) { return *out = &the_allocator, nullptr; }
OrtStatus* free_text(OrtAllocator*, void* text) { return std::free(text), nullptr; }
void release_memory(OrtMemoryInfo*) {}
OrtStatus* create_session_options(OrtSessionOptions** out) {
  return *out = new OrtSessionOptions, nullptr;
}
void release_session_options(OrtSessionOptions* options) { delete options; }
OrtStatus* set_log_severity(OrtSessionOptions*, int) { return nullptr; }
OrtStatus* set_threads(OrtSessionOptions*, int) { return nullptr; }
OrtStatus* set_config(OrtSessionOptions* options, const char* key, const char* value) {
  options->has_no_fallback |=
      std::string(key) == "session.disable_cpu_ep_fallback" && std::string(value) == "1";
  return nullptr;
}

OrtStatus* create_session(const OrtEnv*, const PathChar* path, const OrtSessionOptions* options,
                          OrtSession** out) {
  if (options->has_provider && !options->has_no_fallback) return failed("would fall back");
  std::ifstream file(path);
  auto session = std::make_unique<OrtSession>();
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "layer") {
      auto& [layer, mask] = session->layers.emplace_back();
      words >> layer >> mask;
    } else if (kind == "input" || kind == "output") {
      OrtTensorInfo info;
      info.is_output = kind == "output";
      words >> info.name >> info.type;
      for (int64_t n; words >> n;) info.dims.push_back(n);
      (info.is_output ? session->outputs : session->inputs).push_back(info);
    } else {
      session->trouble = kind;
    }
  }
  if (session->inputs.empty() || session->trouble == "fail_open") return failed("no such graph");
  *out = session.release();
  return nullptr;
}
void release_session(OrtSession* session) { delete session; }
OrtStatus* n_inputs(const OrtSession* session, size_t* n) {
  return *n = session->inputs.size(), nullptr;
}
OrtStatus* n_outputs(const OrtSession* session, size_t* n) {
  return *n = session->outputs.size(), nullptr;
}
OrtStatus* input_name(const OrtSession* session, size_t i, OrtAllocator*, char** name) {
  return *name = strdup(session->inputs[i].name.c_str()), nullptr;
}
OrtStatus* output_name(const OrtSession* session, size_t i, OrtAllocator*, char** name) {
  return *name = strdup(session->outputs[i].name.c_str()), nullptr;
}
OrtStatus* input_type(const OrtSession* session, size_t i, OrtTypeInfo** out) {
  return *out = new OrtTypeInfo{&session->inputs[i]}, nullptr;
}
OrtStatus* output_type(const OrtSession* session, size_t i, OrtTypeInfo** out) {
  return *out = new OrtTypeInfo{&session->outputs[i]}, nullptr;
}
void release_type(OrtTypeInfo* type) { delete type; }
OrtStatus* tensor_info(const OrtTypeInfo* type, const OrtTensorInfo** out) {
  return *out = type->tensor, nullptr;
}
OrtStatus* element_type(const OrtTensorInfo* info, int* type) {
  return *type = info->type, nullptr;
}
OrtStatus* n_dims(const OrtTensorInfo* info, size_t* n) { return *n = info->dims.size(), nullptr; }
OrtStatus* dims(const OrtTensorInfo* info, int64_t* to, size_t n) {
  return std::copy_n(info->dims.begin(), n, to), nullptr;
}
OrtStatus* create_tensor(const OrtMemoryInfo*, void* data, size_t n_bytes, const int64_t* shape,
                         size_t n, int type, OrtValue** out) {
  size_t n_wanted = type == 10 ? 2 : 4;
  for (size_t i = 0; i < n; ++i) n_wanted *= static_cast<size_t>(shape[i]);
  if (n_bytes != n_wanted) return failed("wrong size");
  std::memset(data, 0, n_bytes);  // all of it is there
  *out = new OrtValue{data, {shape, shape + n}, type};
  return nullptr;
}
void release_value(OrtValue* value) { delete value; }
OrtStatus* create_binding(OrtSession*, OrtIoBinding** out) {
  return *out = new OrtIoBinding, nullptr;
}
void release_binding(OrtIoBinding* binding) { delete binding; }
OrtStatus* bind_input(OrtIoBinding* binding, const char* name, const OrtValue* value) {
  return binding->values[name] = *value, nullptr;
}
OrtStatus* bind_output(OrtIoBinding* binding, const char* name, const OrtValue* value) {
  return binding->values[name] = *value, nullptr;
}
OrtStatus* run_with_binding(OrtSession* session, const OrtRunOptions*,
                            const OrtIoBinding* binding) {
  if (session->trouble == "fail_run") return failed("the chip is on fire");
  Run(*session, *binding).run();
  return nullptr;
}
OrtStatus* register_provider(OrtEnv*, const char*, const PathChar* path) {
  return std::string(path).ends_with("good.so") ? nullptr : failed("no such library");
}
OrtStatus* provider_devices(const OrtEnv*, const OrtEpDevice* const** out, size_t* n) {
  static const OrtEpDevice* const devices[] = {&the_device};
  *out = devices;
  *n = 1;
  return nullptr;
}
const char* provider_name(const OrtEpDevice*) { return kProvider; }
OrtStatus* append_built_in(OrtSessionOptions* options, const char* name, const char* const*,
                           const char* const*, size_t) {
  options->has_provider = true;
  return std::string(name) == "BuiltIn" ? nullptr : failed("not in this build");
}
OrtStatus* append_provider(OrtSessionOptions* options, OrtEnv*, const OrtEpDevice* const*, size_t n,
                           const char* const* keys, const char* const* values, size_t n_options) {
  options->has_provider = true;
  const bool is_right =
      n == 1 && n_options == 1 && std::string(keys[0]) == "arch" && std::string(values[0]) == "75";
  return is_right ? nullptr : failed("wrong options");
}

const void* table[400];

const void* get_api(uint32_t version) {
  const char* newest = std::getenv("EDGE_FAKE_ORT_VERSION");
  if (version > static_cast<uint32_t>(newest == nullptr ? 22 : std::atoi(newest))) return nullptr;
#define EDGE_ORT(name, place, result, parameters) \
  table[place] = reinterpret_cast<const void*>(static_cast<result(*) parameters>(name));
#include "backends/npu/ort_functions.inc"
#include "backends/npu/ort_plugin_functions.inc"
#undef EDGE_ORT
  return table;
}
const char* get_version() { return "fake"; }

struct ApiBase {
  const void* (*get_api)(uint32_t);
  const char* (*get_version)();
};
constexpr ApiBase kBase = {get_api, get_version};

}  // namespace

extern "C" __attribute__((visibility("default"))) const ApiBase* OrtGetApiBase() { return &kBase; }
