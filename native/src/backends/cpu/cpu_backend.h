// The CPU backend: Backend ops over the kernel table of the active ISA and the process-wide pool.
#pragma once

#include <memory>

#include "backends/backend.h"
#include "kernels/kernels.h"

namespace edge {

// `kernels` must outlive the backend (kernel_table() and active_kernels() do). n_threads >= 1 caps
// every op.
std::unique_ptr<Backend> create_cpu_backend(const KernelTable& kernels, int n_threads);

}  // namespace edge
