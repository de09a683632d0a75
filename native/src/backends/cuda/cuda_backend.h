// The CUDA backend: Backend ops as kernels on one stream. Every sum is the CPU's, so tokens are the
// CPU's, too (docs/backends.md). Activations and pages are managed memory, which the host may touch
// between steps; weights are copied to the device by load().
#pragma once

#include <memory>

#include "backends/backend.h"

namespace edge {

// Takes `host`, a CPU backend, for what happens between steps (turn_keys, keep_slots) and for
// attention_shares. kDeviceUnavailable where no device answers or it is too old.
Result<std::unique_ptr<Backend>> create_cuda_backend(std::unique_ptr<Backend> host);

}  // namespace edge
