// Memory of the device, and the weights that are copied there.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/os.h"
#include "base/status.h"

namespace edge::cuda {

// kOutOfMemory or kDeviceFailed, saying what was tried.
Status status_of(cudaError_t error, const char* what);

// Zero-filled, for device and host.
Result<PageBuffer> allocate_managed(size_t n_bytes);

// Room that only grows, for one op at a time on a stream.
class DeviceRoom {
 public:
  DeviceRoom() = default;
  DeviceRoom(const DeviceRoom&) = delete;
  DeviceRoom& operator=(const DeviceRoom&) = delete;
  ~DeviceRoom();
  bool has(size_t n_bytes) const { return n_bytes <= n_bytes_; }
  // Nothing may be queued that uses less, unless has(n_bytes).
  Result<std::byte*> bytes(size_t n_bytes);

 private:
  void* data_ = nullptr;
  size_t n_bytes_ = 0;
};

// Copies of ranges of the host's memory that never change.
class LoadedRanges {
 public:
  LoadedRanges() = default;
  LoadedRanges(const LoadedRanges&) = delete;
  LoadedRanges& operator=(const LoadedRanges&) = delete;
  ~LoadedRanges();
  Status load(std::span<const std::byte> bytes, cudaStream_t stream);
  // Where [from, from + n_bytes) is on the device; null: not loaded.
  const std::byte* find(const void* from, size_t n_bytes) const;

 private:
  struct Range {
    std::span<const std::byte> host;
    std::byte* device;
  };
  static const std::byte* first_of(const Range& range) { return range.host.data(); }
  std::vector<Range> ranges_;  // by address, none in another
};

}  // namespace edge::cuda
