#include "backends/gpu/entry.h"

#include "backends/metal/metal_device.h"

extern "C" __attribute__((visibility("default"))) edge::Backend* edgellm_metal_open(
    const char* abi, edge::Backend* host, edge::Status* why) {
  return edge::gpu::open_backend(edge::metal::open_device, abi, host, why);
}
