#include "backends/gpu/entry.h"

#include "backends/gpu/shared_device.h"

namespace {

edge::Result<std::unique_ptr<edge::gpu::Device>> open_device() {
  return edge::gpu::shared::open_device(
      {.name = "vulkan", .title = "Vulkan", .has_float_matrices = false});
}

}  // namespace

#if defined(_WIN32)
#define EDGE_EXPORTED __declspec(dllexport)
#else
#define EDGE_EXPORTED __attribute__((visibility("default")))
#endif

extern "C" EDGE_EXPORTED edge::Backend* edgellm_vulkan_open(const char* abi, edge::Backend* host,
                                                            edge::Status* why) {
  return edge::gpu::open_backend(open_device, abi, host, why);
}
