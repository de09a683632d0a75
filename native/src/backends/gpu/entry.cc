#include "backends/gpu/entry.h"

#include <string_view>

#include "backends/gpu/gpu_backend.h"
#include "backends/gpu/split_backend.h"

namespace edge::gpu {

Backend* open_backend(OpenDevice* open_device, const char* abi, Backend* host, Status* why) {
  std::unique_ptr<Backend> taken(host);
  if (std::string_view(abi) != EDGE_BACKEND_ABI) {
    *why = {Code::kDeviceUnavailable,
            "the library of the backend was built for another version of edgellm; build both from "
            "the same sources"};
    return nullptr;
  }
  auto device = open_device();
  *why = device.status();
  if (!device.is_ok()) return nullptr;
  auto backend = create_gpu_backend(device.take(), std::move(taken));
  return create_split_backend(std::move(backend), *host).release();
}

}  // namespace edge::gpu
