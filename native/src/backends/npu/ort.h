// Ort: onnxruntime, opened while the program runs, and its objects as owners. Of its C interface
// only what is used is declared (ort_functions.inc); no header of it is needed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

struct OrtAllocator;
struct OrtEnv;
struct OrtEpDevice;
struct OrtIoBinding;
struct OrtMemoryInfo;
struct OrtRunOptions;
struct OrtSession;
struct OrtSessionOptions;
struct OrtStatus;
struct OrtTensorInfo;
struct OrtTypeInfo;
struct OrtValue;

namespace edge::npu {

#if defined(_WIN32)
using PathChar = wchar_t;
#else
using PathChar = char;
#endif

// The versions of OrtApi that have what is used.
constexpr uint32_t kOrtVersion = 17;
constexpr uint32_t kOrtPluginVersion = 22;

// What a library exports as OrtGetApiBase().
struct OrtApiBase {
  const void* (*get_api)(uint32_t version);  // a table of functions; null: it is older
  const char* (*get_version)();
};

// ONNXTensorElementDataType.
constexpr int kOrtFloat = 1;
constexpr int kOrtInt32 = 6;
constexpr int kOrtHalf = 10;

struct OrtFunctions {
#define EDGE_ORT(name, place, result, parameters) result(*name) parameters = nullptr;
#include "backends/npu/ort_functions.inc"
#include "backends/npu/ort_plugin_functions.inc"
#undef EDGE_ORT
};

// An execution provider.
struct Provider {
  std::string name;     // "": onnxruntime's CPU provider
  std::string library;  // "": it is in onnxruntime
  std::vector<std::pair<std::string, std::string>> options;
};

// One for each library; it stays until the process ends, as its threads may.
class Ort {
 public:
  // kDeviceUnavailable where the library is not there, or is none, or is too old.
  static Result<Ort*> open(const std::string& library);

  // kDeviceFailed with onnxruntime's words, unless null; takes it.
  Status check(OrtStatus* status) const;
  const OrtFunctions& functions() const { return functions_; }
  const OrtEnv* env() const { return env_; }
  const OrtMemoryInfo* memory() const { return memory_; }
  OrtAllocator* allocator() const { return allocator_; }

  // From now on sessions with these options run wholly on the provider, or not at all: nothing
  // falls back to the CPU. kDeviceUnavailable where its library or a device is not there.
  Status use_provider(OrtSessionOptions* options, const Provider& provider);

 private:
  Ort() = default;
  Status begin(const std::string& library);
  Status register_provider(const Provider& provider);
  Result<std::vector<const OrtEpDevice*>> devices_of(const Provider& provider);

  OrtFunctions functions_;
  OrtEnv* env_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  OrtAllocator* allocator_ = nullptr;
  bool has_plugins_ = false;
  std::mutex mutex_;  // of:
  std::vector<std::string> registered_;
};

// An object of onnxruntime that is released by its function.
template <class T, void (*OrtFunctions::*kRelease)(T*)>
class Owned {
 public:
  Owned() = default;
  explicit Owned(const Ort& ort) : ort_(&ort) {}
  Owned(Owned&& other) noexcept
      : ort_(other.ort_), object_(std::exchange(other.object_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(ort_, other.ort_);
    std::swap(object_, other.object_);
    return *this;
  }
  ~Owned() {
    if (object_ != nullptr) (ort_->functions().*kRelease)(object_);
  }
  T* get() const { return object_; }
  T** out() { return &object_; }  // once

 private:
  const Ort* ort_ = nullptr;
  T* object_ = nullptr;
};
using OwnedOptions = Owned<OrtSessionOptions, &OrtFunctions::release_session_options>;
using OwnedSession = Owned<OrtSession, &OrtFunctions::release_session>;
using OwnedType = Owned<OrtTypeInfo, &OrtFunctions::release_type>;
using OwnedValue = Owned<OrtValue, &OrtFunctions::release_value>;
using OwnedBinding = Owned<OrtIoBinding, &OrtFunctions::release_binding>;

// As the system's own paths are written.
std::basic_string<PathChar> native_path(const std::string& path);

}  // namespace edge::npu
