// The Metal device of GpuBackend: shared memory throughout, and weights where the file is mapped.
#pragma once

#include <memory>

#include "backends/gpu/shared_device.h"

namespace edge::metal {

// The system's device. kDeviceUnavailable where there is none or it is too old.
inline Result<std::unique_ptr<gpu::Device>> open_device() {
  return gpu::shared::open_device({.name = "metal", .title = "Metal", .has_float_matrices = true});
}

}  // namespace edge::metal
