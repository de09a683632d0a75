#include "backends/npu/ort.h"

#include <algorithm>
#include <filesystem>

#include "base/os_library.h"

namespace edge::npu {
namespace {

constexpr int kLogErrors = 3;
constexpr int kArenaAllocator = 1;
constexpr int kDefaultMemory = 0;
constexpr size_t kMostMessage = 400;
constexpr const char* kNoFallback = "session.disable_cpu_ep_fallback";

// The function at `place` of a table.
template <class Function>
void take(const void* table, size_t place, Function& function) {
  function = reinterpret_cast<Function>(static_cast<void* const*>(table)[place]);
}

}  // namespace

std::basic_string<PathChar> native_path(const std::string& path) {
#if defined(_WIN32)
  return std::filesystem::path(std::u8string(path.begin(), path.end())).wstring();
#else
  return path;
#endif
}

Result<Ort*> Ort::open(const std::string& library) {
  static std::mutex mutex;
  // For good: nothing of it is destroyed when the program ends, while threads of it may run.
  static auto& opened = *new std::map<std::string, Ort*>;
  const std::lock_guard lock(mutex);
  if (const auto found = opened.find(library); found != opened.end()) return found->second;
  std::unique_ptr<Ort> ort(new Ort);
  EDGE_RETURN_IF_ERROR(ort->begin(library));
  return opened[library] = ort.release();
}

Status Ort::begin(const std::string& library) {
  const auto function = library_function(library, "OrtGetApiBase");
  if (!function.is_ok()) {
    return {Code::kDeviceUnavailable, "onnxruntime cannot be opened (" +
                                          function.status().message() +
                                          "): pip install 'edgellm[npu]'"};
  }
  using GetApiBase = const OrtApiBase*();
  const OrtApiBase* base = reinterpret_cast<GetApiBase*>(function.value())();
  const void* table = base == nullptr ? nullptr : base->get_api(kOrtVersion);
  if (table == nullptr) {
    return {Code::kDeviceUnavailable, library + ": is older than onnxruntime 1." +
                                          std::to_string(kOrtVersion) +
                                          "; pip install --upgrade onnxruntime"};
  }
#define EDGE_ORT(name, place, result, parameters) take(table, place, functions_.name);
#include "backends/npu/ort_functions.inc"
  if (const void* newer = base->get_api(kOrtPluginVersion); newer != nullptr) {
    table = newer;
    has_plugins_ = true;
#include "backends/npu/ort_plugin_functions.inc"
  }
#undef EDGE_ORT
  EDGE_RETURN_IF_ERROR(check(functions_.create_env(kLogErrors, "edgellm", &env_)));
  EDGE_RETURN_IF_ERROR(
      check(functions_.create_cpu_memory(kArenaAllocator, kDefaultMemory, &memory_)));
  return check(functions_.allocator(&allocator_));
}

Status Ort::check(OrtStatus* status) const {
  if (status == nullptr) return {};
  std::string message = functions_.get_error_message(status);
  functions_.release_status(status);
  if (message.size() > kMostMessage) message.resize(kMostMessage);
  return {Code::kDeviceFailed, "onnxruntime: " + message};
}

Status Ort::register_provider(const Provider& provider) {
  const std::lock_guard lock(mutex_);
  if (std::ranges::find(registered_, provider.name) != registered_.end()) return {};
  const auto path = native_path(provider.library);
  const Status status =
      check(functions_.register_provider(env_, provider.name.c_str(), path.c_str()));
  if (!status.is_ok()) return {Code::kDeviceUnavailable, status.message()};
  registered_.push_back(provider.name);
  return {};
}

Result<std::vector<const OrtEpDevice*>> Ort::devices_of(const Provider& provider) {
  if (!has_plugins_) {
    return {Code::kDeviceUnavailable, provider.name + " takes onnxruntime 1." +
                                          std::to_string(kOrtPluginVersion) +
                                          " or newer; pip install --upgrade onnxruntime"};
  }
  EDGE_RETURN_IF_ERROR(register_provider(provider));
  const OrtEpDevice* const* all = nullptr;
  size_t n_all = 0;
  EDGE_RETURN_IF_ERROR(check(functions_.provider_devices(env_, &all, &n_all)));
  std::vector<const OrtEpDevice*> devices;
  for (const OrtEpDevice* device : std::span(all, n_all)) {
    if (functions_.provider_name(device) == provider.name) devices.push_back(device);
  }
  if (!devices.empty()) return devices;
  return {Code::kDeviceUnavailable,
          "onnxruntime has no device for " + provider.name + " on this machine"};
}

Status Ort::use_provider(OrtSessionOptions* options, const Provider& provider) {
  EDGE_RETURN_IF_ERROR(check(functions_.set_config(options, kNoFallback, "1")));
  std::vector<const char*> keys, values;
  for (const auto& [key, value] : provider.options) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  if (provider.library.empty()) {
    const Status status = check(functions_.append_built_in(
        options, provider.name.c_str(), keys.data(), values.data(), keys.size()));
    return status.is_ok() ? status : Status(Code::kDeviceUnavailable, status.message());
  }
  EDGE_ASSIGN_OR_RETURN(const std::vector<const OrtEpDevice*> devices, devices_of(provider));
  return check(functions_.append_provider(options, env_, devices.data(), devices.size(),
                                          keys.data(), values.data(), keys.size()));
}

}  // namespace edge::npu
