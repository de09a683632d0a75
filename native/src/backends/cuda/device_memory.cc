#include "backends/cuda/device_memory.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace edge::cuda {
namespace {

constexpr size_t kBoxBytes = size_t{256} << 10;
constexpr size_t kAlignment = 256;

void release_managed(std::byte* data, size_t) { cudaFree(data); }

size_t round_up(size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

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
  ranges_.push_back({bytes, static_cast<std::byte*>(device)});
  EDGE_RETURN_IF_ERROR(
      status_of(cudaMemcpyAsync(device, bytes.data(), bytes.size(), cudaMemcpyHostToDevice, stream),
                "copying the weights"));
  return status_of(cudaStreamSynchronize(stream), "copying the weights");
}

const std::byte* LoadedRanges::find(const void* from, size_t n_bytes) const {
  const auto at = reinterpret_cast<uintptr_t>(from);
  for (const Range& range : ranges_) {
    const auto begin = reinterpret_cast<uintptr_t>(range.host.data());
    if (at < begin || at - begin > range.host.size()) continue;
    const size_t offset = at - begin;
    if (n_bytes <= range.host.size() - offset) return range.device + offset;
  }
  return nullptr;
}

Mailbox::~Mailbox() {
  for (const Box& box : boxes_) {
    cudaFreeHost(box.host);
    cudaFree(box.device);
  }
}

void Mailbox::reset() {
  box_ = 0;
  used_ = 0;
}

Status Mailbox::add_box(size_t n_bytes) {
  void *host = nullptr, *device = nullptr;
  EDGE_RETURN_IF_ERROR(status_of(cudaMallocHost(&host, n_bytes), "pinned memory"));
  if (const Status status = status_of(cudaMalloc(&device, n_bytes), "memory for rows");
      !status.is_ok()) {
    cudaFreeHost(host);
    return status;
  }
  boxes_.push_back({static_cast<std::byte*>(host), static_cast<std::byte*>(device), n_bytes});
  return {};
}

Result<const std::byte*> Mailbox::send(std::span<const std::byte> bytes, cudaStream_t stream) {
  while (box_ < boxes_.size() && boxes_[box_].n_bytes - used_ < bytes.size()) {
    ++box_;
    used_ = 0;
  }
  if (box_ == boxes_.size()) {
    EDGE_RETURN_IF_ERROR(add_box(std::max(kBoxBytes, round_up(bytes.size()))));
  }
  const Box& box = boxes_[box_];
  std::memcpy(box.host + used_, bytes.data(), bytes.size());
  EDGE_RETURN_IF_ERROR(status_of(cudaMemcpyAsync(box.device + used_, box.host + used_, bytes.size(),
                                                 cudaMemcpyHostToDevice, stream),
                                 "sending rows"));
  const std::byte* sent = box.device + used_;
  used_ = std::min(box.n_bytes, used_ + round_up(bytes.size()));
  return sent;
}

}  // namespace edge::cuda
