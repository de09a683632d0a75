#include "backends/cuda_library.h"

#include <cstdlib>
#include <string>

#include "base/os_library.h"

namespace edge {
namespace {

std::string library_path() {
  const char* named = std::getenv("EDGELLM_CUDA_LIBRARY");
  if (named != nullptr && *named != '\0') return named;
  return own_directory() + "/libedgellm_cuda.so";
}

}  // namespace

Result<std::unique_ptr<Backend>> open_cuda_library(std::unique_ptr<Backend> host) {
  auto function = library_function(library_path(), "edgellm_cuda_open");
  if (!function.is_ok()) {
    return {Code::kDeviceUnavailable,
            "the CUDA backend cannot be opened (" + function.status().message() +
                "); build it with -DEDGE_BUILD_CUDA=ON and name the library in "
                "EDGELLM_CUDA_LIBRARY, or load with backend 'cpu'"};
  }
  Status why;
  const auto open = reinterpret_cast<CudaOpenFn>(function.value());
  std::unique_ptr<Backend> backend(open(EDGE_BACKEND_ABI, host.release(), &why));
  if (backend == nullptr) return why;
  return backend;
}

}  // namespace edge
