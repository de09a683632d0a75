#include "backends/cuda/cuda_device.h"

#include <algorithm>
#include <array>
#include <string>

#include "backends/cuda/device_memory.h"
#include "backends/cuda/mail.h"
#include "backends/cuda/step_graphs.h"

namespace edge::cuda {
namespace {

// Compute capabilities, times ten: what our PTX is for, and what has 8-bit floats.
constexpr int kLeast = 80, kLeastFp8 = 89;

// A step is recorded while it is made, and queued when something waits for it (StepGraphs).
class CudaDevice final : public gpu::Device {
 public:
  explicit CudaDevice(bool takes_fp8) : takes_fp8_(takes_fp8) {}
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;
  ~CudaDevice() override {
    if (stream_ == nullptr) return;
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }

  Status open() { return status_of(cudaStreamCreate(&stream_), "a stream"); }

  const char* name() const override { return takes_fp8_ ? "cuda-fp8" : "cuda"; }
  const char* title() const override { return "CUDA"; }
  bool has_f64() const override { return true; }
  bool has_int8_matrices() const override { return true; }
  bool takes_fp8() const override { return takes_fp8_; }

  PageBuffer::Allocate allocator() const override { return allocate_managed; }
  Status load(std::span<const std::byte> weights) override {
    return loaded_.load(weights, stream_);
  }
  Result<size_t> weight_room() const override {
    size_t n_free = 0, n_total = 0;
    EDGE_RETURN_IF_ERROR(status_of(cudaMemGetInfo(&n_free, &n_total), "memory of the device"));
    return n_free - std::min(n_free, gpu::kStepBytes);
  }
  const std::byte* loaded(const void* from, size_t n_bytes) const override {
    return loaded_.find(from, n_bytes);
  }
  // Managed memory has one address.
  std::byte* address(const void* allocated) const override {
    return static_cast<std::byte*>(const_cast<void*>(allocated));
  }
  Result<std::byte*> room(gpu::Room which, size_t n_bytes) override {
    DeviceRoom& room = rooms_[static_cast<size_t>(which)];
    if (!room.has(n_bytes)) EDGE_RETURN_IF_ERROR(wait());  // for kernels that use it
    return room.bytes(n_bytes);
  }
  Result<const std::byte*> send(std::span<const std::byte> bytes) override {
    return mailbox_.put(bytes);
  }

  Status begin() override {
    record_.clear();  // of a step that was cancelled
    EDGE_RETURN_IF_ERROR(status_of(cudaStreamSynchronize(stream_), "a kernel"));
    outbox_.clear();
    mailbox_.clear();
    const int32_t is_finite = 0;
    EDGE_ASSIGN_OR_RETURN(const std::byte* flag,
                          mailbox_.put(std::as_bytes(std::span(&is_finite, 1))));
    flag_ = reinterpret_cast<int32_t*>(const_cast<std::byte*>(flag));
    return {};
  }
  int32_t* flag() override { return flag_; }
  Status launch(const char* kernel, std::span<const std::byte> args, gpu::Grid grid,
                int n_threads) override {
    const Kernel* found = find_kernel(kernel);
    if (found == nullptr || found->args_bytes != args.size()) {
      return {Code::kFeatureUnsupported, std::string("CUDA: no kernel ") + kernel};
    }
    record_.launch(*found, args.data(),
                   dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                        static_cast<unsigned>(grid.z)),
                   dim3(static_cast<unsigned>(n_threads)));
    return {};
  }
  Status wait() override {
    mailbox_.send(record_);
    const Status status = graphs_.run(record_, stream_);
    record_.clear();
    EDGE_RETURN_IF_ERROR(status);
    EDGE_RETURN_IF_ERROR(status_of(cudaStreamSynchronize(stream_), "a kernel"));
    outbox_.deliver();
    return {};
  }
  Status fetch(const void* from, size_t n_bytes, void* to) override {
    if (outbox_.n_bytes() > kMostOutbox) EDGE_RETURN_IF_ERROR(wait());
    return outbox_.fetch(from, n_bytes, to, record_);
  }
  Result<bool> end() override {
    int32_t is_not_finite = 0;
    EDGE_RETURN_IF_ERROR(fetch(flag_, sizeof is_not_finite, &is_not_finite));
    EDGE_RETURN_IF_ERROR(wait());
    return is_not_finite == 0;
  }

 private:
  static constexpr size_t kMostOutbox = size_t{32} << 20;

  const bool takes_fp8_;
  cudaStream_t stream_ = nullptr;
  LoadedRanges loaded_;
  Mailbox mailbox_;
  Outbox outbox_;
  std::array<DeviceRoom, gpu::kRooms> rooms_;
  StepRecord record_;
  StepGraphs graphs_;
  int32_t* flag_ = nullptr;  // in the mailbox, of the step
};

// kDeviceUnavailable where the chip's capability is less than `least`.
Result<std::unique_ptr<gpu::Device>> open(bool takes_fp8, int least, const char* other) {
  int n_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&n_devices);
  if (error != cudaSuccess || n_devices == 0) {
    const std::string why = error == cudaSuccess ? "no device" : cudaGetErrorString(error);
    return {Code::kDeviceUnavailable,
            "CUDA: " + why + "; install NVIDIA's driver, or load with backend 'cpu'"};
  }
  cudaDeviceProp properties;
  EDGE_RETURN_IF_ERROR(status_of(cudaGetDeviceProperties(&properties, 0), "device 0"));
  const auto text = [](int major, int minor) {
    return std::to_string(major) + '.' + std::to_string(minor);
  };
  if (10 * properties.major + properties.minor < least) {
    return {Code::kDeviceUnavailable,
            "CUDA: " + std::string(properties.name) + " has compute capability " +
                text(properties.major, properties.minor) + " and " + text(least / 10, least % 10) +
                " is the least" + (takes_fp8 ? " with 8-bit floats" : "") +
                "; load with backend '" + other + "'"};
  }
  EDGE_RETURN_IF_ERROR(status_of(cudaSetDevice(0), "device 0"));
  auto device = std::make_unique<CudaDevice>(takes_fp8);
  EDGE_RETURN_IF_ERROR(device->open());
  return std::unique_ptr<gpu::Device>(std::move(device));
}

}  // namespace

Result<std::unique_ptr<gpu::Device>> open_device() { return open(false, kLeast, "cpu"); }
Result<std::unique_ptr<gpu::Device>> open_fp8_device() { return open(true, kLeastFp8, "cuda"); }

}  // namespace edge::cuda
