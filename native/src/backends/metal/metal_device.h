// The Metal device of GpuBackend: shared memory throughout, and weights where the file is mapped.
// A step is queued while it is made, and runs when something waits for it.
#pragma once

#include <memory>

#include "backends/gpu/device.h"

namespace edge::metal {

// The system's device. kDeviceUnavailable where there is none or it is too old.
Result<std::unique_ptr<gpu::Device>> open_device();

}  // namespace edge::metal
