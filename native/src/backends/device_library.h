// Backends of devices are libraries of their own, so that machines without a device carry nothing
// of them: libedgellm_cuda.so or libedgellm_metal.dylib beside this program or module, or what
// EDGELLM_CUDA_LIBRARY or EDGELLM_METAL_LIBRARY names. Apple's systems always have Metal, so a
// build for them may link its backend instead (EDGE_METAL_LINKED).
#pragma once

#include <memory>
#include <string_view>

#include "backends/backend.h"

namespace edge {

// Whether there is such a backend, here or elsewhere: "cuda", "cuda-fp8", "metal".
bool is_device_backend(std::string_view name);

// Takes `host`, a CPU backend, as create_gpu_backend() does. kDeviceUnavailable, saying what to do,
// where the library is not there, is of another version, or finds no device.
Result<std::unique_ptr<Backend>> open_device_backend(std::string_view name,
                                                     std::unique_ptr<Backend> host);

// What a library exports as "edgellm_NAME_open" (cuda_fp8 for "cuda-fp8"): a backend, or null and
// why. Takes `host` in both cases. abi: EDGE_BACKEND_ABI of the caller.
using OpenBackendFn = Backend*(const char* abi, Backend* host, Status* why);

}  // namespace edge
