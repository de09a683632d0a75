#include "emulated.h"

#include "backends/cpu/cpu_backend.h"
#include "backends/cuda/cuda_device.h"
#include "backends/gpu/gpu_backend.h"
#include "backends/metal/metal_device.h"
#include "doctest/doctest.h"
#include "kernels/kernels.h"

namespace edge::test {
namespace {

std::unique_ptr<Backend> backend_of(Result<std::unique_ptr<gpu::Device>> device) {
  REQUIRE(device.status().message() == "");
  return create_gpu_backend(device.take(), create_cpu_backend(active_kernels(), 1));
}

}  // namespace

std::unique_ptr<Backend> emulated_cuda() { return backend_of(cuda::open_device()); }
std::unique_ptr<Backend> emulated_cuda_fp8() { return backend_of(cuda::open_fp8_device()); }
std::unique_ptr<Backend> emulated_metal() { return backend_of(metal::open_device()); }

}  // namespace edge::test
