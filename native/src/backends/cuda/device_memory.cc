#include "backends/cuda/device_memory.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

namespace edge::cuda {
namespace {

void release_managed(std::byte* data, size_t) { cudaFree(data); }

// Bytes of a mapped file on their way to the device, through pinned memory: while one half of it is
// copied there, the other is filled, which is when the file is read.
class Uploader {
 public:
  Uploader() = default;
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;
  ~Uploader() {
    for (const Half& half : halves_) {
      if (half.is_free != nullptr) cudaEventDestroy(half.is_free);
      if (half.pinned != nullptr) cudaFreeHost(half.pinned);
    }
  }

  Status copy(std::span<const std::byte> from, std::byte* to, cudaStream_t stream) {
    for (Half& half : halves_) {
      EDGE_RETURN_IF_ERROR(status_of(cudaMallocHost(&half.pinned, kHalfBytes), "pinned memory"));
      EDGE_RETURN_IF_ERROR(
          status_of(cudaEventCreateWithFlags(&half.is_free, cudaEventDisableTiming), "an event"));
    }
    for (size_t at = 0, i = 0; at < from.size(); at += kHalfBytes, ++i) {
      Half& half = halves_[i % halves_.size()];
      const size_t n = std::min(kHalfBytes, from.size() - at);
      // Of an event that nothing was recorded of that is at once.
      EDGE_RETURN_IF_ERROR(status_of(cudaEventSynchronize(half.is_free), kWhat));
      std::memcpy(half.pinned, from.data() + at, n);
      EDGE_RETURN_IF_ERROR(status_of(
          cudaMemcpyAsync(to + at, half.pinned, n, cudaMemcpyHostToDevice, stream), kWhat));
      EDGE_RETURN_IF_ERROR(status_of(cudaEventRecord(half.is_free, stream), kWhat));
    }
    return status_of(cudaStreamSynchronize(stream), kWhat);
  }

 private:
  static constexpr size_t kHalfBytes = size_t{16} << 20;
  static constexpr const char* kWhat = "copying the weights";
  struct Half {
    void* pinned = nullptr;
    cudaEvent_t is_free = nullptr;
  };
  std::array<Half, 2> halves_;
};

}  // namespace

Status status_of(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  const Code code = error == cudaErrorMemoryAllocation ? Code::kOutOfMemory : Code::kDeviceFailed;
  return {code, std::string("CUDA: ") + what + ": " + cudaGetErrorString(error)};
}

Result<PageBuffer> allocate_managed(size_t n_bytes) {
  void* data = nullptr;
  EDGE_RETURN_IF_ERROR(
      status_of(cudaMallocManaged(&data, std::max<size_t>(n_bytes, 1)), "managed memory"));
  auto* bytes = static_cast<std::byte*>(data);
  std::memset(bytes, 0, n_bytes);
  return PageBuffer::adopt(bytes, n_bytes, release_managed);
}

DeviceRoom::~DeviceRoom() { cudaFree(data_); }

Result<std::byte*> DeviceRoom::bytes(size_t n_bytes) {
  if (n_bytes > n_bytes_) {
    cudaFree(data_);  // waits for kernels that use it
    data_ = nullptr;
    n_bytes_ = 0;
    EDGE_RETURN_IF_ERROR(status_of(cudaMalloc(&data_, n_bytes), "scratch"));
    n_bytes_ = n_bytes;
  }
  return static_cast<std::byte*>(data_);
}

LoadedRanges::~LoadedRanges() {
  for (const Range& range : ranges_) cudaFree(range.device);
}

Status LoadedRanges::load(std::span<const std::byte> bytes, cudaStream_t stream) {
  if (bytes.empty() || find(bytes.data(), bytes.size()) != nullptr) return {};
  void* device = nullptr;
  EDGE_RETURN_IF_ERROR(status_of(cudaMalloc(&device, bytes.size()), "memory for the weights"));
  const auto behind = std::ranges::upper_bound(ranges_, bytes.data(), {}, first_of);
  ranges_.insert(behind, {bytes, static_cast<std::byte*>(device)});
  Uploader uploader;
  return uploader.copy(bytes, static_cast<std::byte*>(device), stream);
}

const std::byte* LoadedRanges::find(const void* from, size_t n_bytes) const {
  const auto* at = static_cast<const std::byte*>(from);
  const auto behind = std::ranges::upper_bound(ranges_, at, {}, first_of);
  if (behind == ranges_.begin()) return nullptr;
  const Range& range = *std::prev(behind);
  const auto offset = static_cast<size_t>(at - range.host.data());
  const bool is_in = offset <= range.host.size() && n_bytes <= range.host.size() - offset;
  return is_in ? range.device + offset : nullptr;
}

}  // namespace edge::cuda
