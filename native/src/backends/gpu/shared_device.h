// The device of GpuBackend where all memory is the host's, too, over what shared_host.h asks of a
// driver. A step is queued while it is made, and runs when something waits for it.
#pragma once

#include <memory>

#include "backends/gpu/device.h"

namespace edge::gpu::shared {

struct Traits {
  const char* name;   // of the backend: "metal"
  const char* title;  // in messages: "Metal"
  bool has_float_matrices;
};

// The system's device. kDeviceUnavailable where there is none that will do.
Result<std::unique_ptr<Device>> open_device(const Traits& traits);

}  // namespace edge::gpu::shared
