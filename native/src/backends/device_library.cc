#include "backends/device_library.h"

#include <cstdlib>
#include <string>

#include "backends/step_graphs.h"
#include "base/os_library.h"

#if defined(EDGE_METAL_LINKED)
extern "C" edge::OpenBackendFn edgellm_metal_open;
#endif

namespace edge {
namespace {

#if defined(_WIN32)
constexpr const char* kVulkanLibrary = "edgellm_vulkan.dll";
#elif defined(__APPLE__)
constexpr const char* kVulkanLibrary = "libedgellm_vulkan.dylib";
#else
constexpr const char* kVulkanLibrary = "libedgellm_vulkan.so";
#endif

struct DeviceBackend {
  const char* name;
  const char* title;
  const char* variable;  // of the environment
  const char* library;
  const char* symbol;
  const char* option;  // that builds it
};
constexpr DeviceBackend kBackends[] = {
    {"cuda", "CUDA", "EDGELLM_CUDA_LIBRARY", "libedgellm_cuda.so", "edgellm_cuda_open",
     "-DEDGE_BUILD_CUDA=ON"},
    {"cuda-fp8", "CUDA", "EDGELLM_CUDA_LIBRARY", "libedgellm_cuda.so", "edgellm_cuda_fp8_open",
     "-DEDGE_BUILD_CUDA=ON"},
    {"metal", "Metal", "EDGELLM_METAL_LIBRARY", "libedgellm_metal.dylib", "edgellm_metal_open",
     "-DEDGE_BUILD_METAL=ON on macOS"},
    {"vulkan", "Vulkan", "EDGELLM_VULKAN_LIBRARY", kVulkanLibrary, "edgellm_vulkan_open",
     "-DEDGE_BUILD_VULKAN=ON"},
};

const DeviceBackend* find_backend(std::string_view name) {
  for (const DeviceBackend& backend : kBackends) {
    if (backend.name == name) return &backend;
  }
  return nullptr;
}

constexpr const char* kGraphsVariable = "EDGELLM_NPU_LIBRARY";
#if defined(_WIN32)
constexpr const char* kGraphsLibrary = "edgellm_npu.dll";
#elif defined(__APPLE__)
constexpr const char* kGraphsLibrary = "libedgellm_npu.dylib";
#else
constexpr const char* kGraphsLibrary = "libedgellm_npu.so";
#endif

// What the environment names, or the library beside this program or module.
std::string library_path(const char* variable, const char* library) {
  const char* named = std::getenv(variable);
  return named != nullptr && *named != '\0' ? named : own_directory() + '/' + library;
}

// An OpenBackendFn*.
Result<void*> opener_of(const DeviceBackend& backend) {
#if defined(EDGE_METAL_LINKED)
  const char* named = std::getenv(backend.variable);
  const bool is_named = named != nullptr && *named != '\0';
  if (!is_named && backend.name == std::string_view("metal"))
    return reinterpret_cast<void*>(&edgellm_metal_open);
#endif
  auto function = library_function(library_path(backend.variable, backend.library), backend.symbol);
  if (!function.is_ok()) {
    return {Code::kDeviceUnavailable,
            "the " + std::string(backend.title) + " backend cannot be opened (" +
                function.status().message() + "); build it with " + backend.option +
                " and name the library in " + backend.variable + ", or load with backend 'cpu'"};
  }
  return function;
}

}  // namespace

bool is_device_backend(std::string_view name) { return find_backend(name) != nullptr; }

Result<std::unique_ptr<Backend>> open_device_backend(std::string_view name,
                                                     std::unique_ptr<Backend> host) {
  const DeviceBackend* found = find_backend(name);
  if (found == nullptr) {
    return {Code::kBackendUnsupported, "no backend '" + std::string(name) + "'"};
  }
  EDGE_ASSIGN_OR_RETURN(void* opener, opener_of(*found));
  const auto open = reinterpret_cast<OpenBackendFn*>(opener);
  Status why;
  std::unique_ptr<Backend> backend(open(EDGE_BACKEND_ABI, host.release(), &why));
  if (backend == nullptr) return why;
  return backend;
}

Result<std::unique_ptr<StepGraphs>> open_step_graphs(const GraphSettings& settings) {
  const auto opener =
      library_function(library_path(kGraphsVariable, kGraphsLibrary), "edgellm_npu_open");
  if (!opener.is_ok()) {
    return {Code::kDeviceUnavailable, "the NPU backend cannot be opened (" +
                                          opener.status().message() + "); name the library in " +
                                          kGraphsVariable + ", or load with backend 'cpu'"};
  }
  Status why;
  const auto open = reinterpret_cast<OpenStepGraphsFn*>(opener.value());
  std::unique_ptr<StepGraphs> graphs(open(EDGE_GRAPHS_ABI, settings, &why));
  if (graphs == nullptr) return why;
  return graphs;
}

}  // namespace edge
