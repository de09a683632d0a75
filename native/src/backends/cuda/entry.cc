#include "backends/gpu/entry.h"

#include "backends/cuda/cuda_device.h"

#define EDGE_EXPORTED extern "C" __attribute__((visibility("default"))) edge::Backend*

EDGE_EXPORTED edgellm_cuda_open(const char* abi, edge::Backend* host, edge::Status* why) {
  return edge::gpu::open_backend(edge::cuda::open_device, abi, host, why);
}
EDGE_EXPORTED edgellm_cuda_fp8_open(const char* abi, edge::Backend* host, edge::Status* why) {
  return edge::gpu::open_backend(edge::cuda::open_fp8_device, abi, host, why);
}
