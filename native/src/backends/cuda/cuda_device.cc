#include "backends/cuda/cuda_device.h"

#include <array>
#include <string>

#include "backends/cuda/device_memory.h"
#include "backends/cuda/kernel_table.h"

namespace edge::cuda {
namespace {

constexpr int kLeastMajor = 8;  // compute capability: what our PTX is for

class CudaDevice final : public gpu::Device {
 public:
  CudaDevice() = default;
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;
  ~CudaDevice() override {
    if (stream_ != nullptr) {
      cudaStreamSynchronize(stream_);
      cudaStreamDestroy(stream_);
    }
    cudaFree(flag_);
    cudaFreeHost(seen_flag_);
  }

  Status open() {
    EDGE_RETURN_IF_ERROR(status_of(cudaStreamCreate(&stream_), "a stream"));
    void *flag = nullptr, *seen = nullptr;
    EDGE_RETURN_IF_ERROR(status_of(cudaMalloc(&flag, sizeof(int32_t)), "a flag"));
    flag_ = static_cast<int32_t*>(flag);
    EDGE_RETURN_IF_ERROR(status_of(cudaMallocHost(&seen, sizeof(int32_t)), "a flag"));
    seen_flag_ = static_cast<int32_t*>(seen);
    return {};
  }

  const char* name() const override { return "cuda"; }
  const char* title() const override { return "CUDA"; }
  bool has_f64() const override { return true; }
  bool has_int8_matrices() const override { return true; }

  PageBuffer::Allocate allocator() const override { return allocate_managed; }
  Status load(std::span<const std::byte> weights) override {
    return loaded_.load(weights, stream_);
  }
  const std::byte* loaded(const void* from, size_t n_bytes) const override {
    return loaded_.find(from, n_bytes);
  }
  // Managed memory has one address.
  std::byte* address(const void* allocated) const override {
    return static_cast<std::byte*>(const_cast<void*>(allocated));
  }
  Result<std::byte*> room(gpu::Room which, size_t n_bytes) override {
    return rooms_[static_cast<size_t>(which)].bytes(n_bytes);
  }
  Result<const std::byte*> send(std::span<const std::byte> bytes) override {
    return mailbox_.send(bytes, stream_);
  }

  Status begin() override {
    EDGE_RETURN_IF_ERROR(wait());
    mailbox_.reset();
    return status_of(cudaMemsetAsync(flag_, 0, sizeof(int32_t), stream_), "a flag");
  }
  int32_t* flag() override { return flag_; }
  Status launch(const char* kernel, std::span<const std::byte> args, gpu::Grid grid,
                int n_threads) override {
    const Launch queue = find_kernel(kernel);
    if (queue == nullptr) {
      return {Code::kFeatureUnsupported, std::string("CUDA: no kernel ") + kernel};
    }
    queue(args.data(),
          dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
               static_cast<unsigned>(grid.z)),
          dim3(static_cast<unsigned>(n_threads)), stream_);
    return {};
  }
  Status wait() override { return status_of(cudaStreamSynchronize(stream_), "a kernel"); }
  Status fetch(const float* from, int64_t n, float* to) override {
    const auto n_bytes = static_cast<size_t>(n) * sizeof(float);
    return status_of(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDefault, stream_), "a copy");
  }
  Result<bool> end() override {
    EDGE_RETURN_IF_ERROR(status_of(cudaGetLastError(), "a launch"));
    EDGE_RETURN_IF_ERROR(status_of(
        cudaMemcpyAsync(seen_flag_, flag_, sizeof(int32_t), cudaMemcpyDeviceToHost, stream_),
        "a flag"));
    EDGE_RETURN_IF_ERROR(wait());
    return *seen_flag_ == 0;
  }

 private:
  cudaStream_t stream_ = nullptr;
  LoadedRanges loaded_;
  Mailbox mailbox_;
  std::array<DeviceRoom, gpu::kRooms> rooms_;
  int32_t* flag_ = nullptr;
  int32_t* seen_flag_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<gpu::Device>> open_device() {
  int n_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&n_devices);
  if (error != cudaSuccess || n_devices == 0) {
    const std::string why = error == cudaSuccess ? "no device" : cudaGetErrorString(error);
    return {Code::kDeviceUnavailable,
            "CUDA: " + why + "; install NVIDIA's driver, or load with backend 'cpu'"};
  }
  cudaDeviceProp properties;
  EDGE_RETURN_IF_ERROR(status_of(cudaGetDeviceProperties(&properties, 0), "device 0"));
  if (properties.major < kLeastMajor) {
    return {Code::kDeviceUnavailable,
            "CUDA: " + std::string(properties.name) + " has compute capability " +
                std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                " and 8.0 is the least; load with backend 'cpu'"};
  }
  EDGE_RETURN_IF_ERROR(status_of(cudaSetDevice(0), "device 0"));
  auto device = std::make_unique<CudaDevice>();
  EDGE_RETURN_IF_ERROR(device->open());
  return std::unique_ptr<gpu::Device>(std::move(device));
}

}  // namespace edge::cuda
