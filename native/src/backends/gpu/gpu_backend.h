// The backend of GPUs: ops as kernels on one queue of a device. Every sum is the CPU's, so tokens
// are the CPU's, too (docs/backends.md).
#pragma once

#include <memory>

#include "backends/backend.h"
#include "backends/gpu/device.h"

namespace edge {

// Takes `host`, a CPU backend, for what happens between steps (turn_keys, keep_slots), for
// attention_shares and, where the device has no f64, for rope_table.
std::unique_ptr<Backend> create_gpu_backend(std::unique_ptr<gpu::Device> device,
                                            std::unique_ptr<Backend> host);

}  // namespace edge
