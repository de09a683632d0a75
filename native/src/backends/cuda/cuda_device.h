// The CUDA device of GpuBackend. Activations and pages are managed memory, which the host may touch
// between steps; weights are copied to the device by load().
#pragma once

#include <memory>

#include "backends/gpu/device.h"

namespace edge::cuda {

// Device 0. kDeviceUnavailable where none answers or it is too old.
Result<std::unique_ptr<gpu::Device>> open_device();
// The same for backend "cuda-fp8": products of many rows as 8-bit floats, which it must have.
Result<std::unique_ptr<gpu::Device>> open_fp8_device();

}  // namespace edge::cuda
