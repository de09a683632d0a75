// The CUDA backend (backends/cuda) is a shared library of its own, so that machines without a GPU
// carry nothing of it: libedgellm_cuda.so beside this program or module, or what
// EDGELLM_CUDA_LIBRARY names.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace edge {

// `host` as for create_cuda_backend(). kDeviceUnavailable, saying what to do, where the library is
// not there, is of another version, or finds no device.
Result<std::unique_ptr<Backend>> open_cuda_library(std::unique_ptr<Backend> host);

// What the library exports as "edgellm_cuda_open": a backend, or null and why. Takes `host` in both
// cases. abi: EDGE_BACKEND_ABI of the caller.
using CudaOpenFn = Backend* (*)(const char* abi, Backend* host, Status* why);

}  // namespace edge
