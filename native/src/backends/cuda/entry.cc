#include "backends/gpu/entry.h"

#include "backends/cuda/cuda_device.h"

extern "C" __attribute__((visibility("default"))) edge::Backend* edgellm_cuda_open(
    const char* abi, edge::Backend* host, edge::Status* why) {
  return edge::gpu::open_backend(edge::cuda::open_device, abi, host, why);
}
