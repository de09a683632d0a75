// What the library exports: backends/cuda_library.h.
#include <string_view>

#include "backends/cuda/cuda_backend.h"
#include "backends/cuda_library.h"

extern "C" __attribute__((visibility("default"))) edge::Backend* edgellm_cuda_open(
    const char* abi, edge::Backend* host, edge::Status* why) {
  std::unique_ptr<edge::Backend> taken(host);
  if (std::string_view(abi) != EDGE_BACKEND_ABI) {
    *why = {edge::Code::kDeviceUnavailable,
            "the library of the CUDA backend was built for another version of edgellm; build both "
            "from the same sources"};
    return nullptr;
  }
  auto made = edge::create_cuda_backend(std::move(taken));
  *why = made.status();
  return made.is_ok() ? made.take().release() : nullptr;
}
