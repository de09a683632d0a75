// What a library of a device exports: backends/device_library.h.
#pragma once

#include "backends/backend.h"
#include "backends/gpu/device.h"

namespace edge::gpu {

using OpenDevice = Result<std::unique_ptr<Device>>();

// The body of "edgellm_NAME_open".
Backend* open_backend(OpenDevice* open_device, const char* abi, Backend* host, Status* why);

}  // namespace edge::gpu
