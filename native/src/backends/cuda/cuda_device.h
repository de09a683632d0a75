// The CUDA device of GpuBackend. Activations and pages are managed memory, which the host may touch
// between steps; weights are copied to the device by load().
#pragma once

#include <memory>

#include "backends/gpu/device.h"

namespace edge::cuda {

// Device 0. kDeviceUnavailable where none answers or it is too old.
Result<std::unique_ptr<gpu::Device>> open_device();

}  // namespace edge::cuda
