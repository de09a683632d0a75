// What only a device's driver can do where host and device share memory, as little as that is:
// metal/host.mm, vulkan/host.cc, and the emulator's (tests/emulation/metal/host.cc), one of which
// is linked to what is above it, shared_device.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "backends/gpu/device.h"
#include "base/status.h"

namespace edge::gpu::shared {

// Memory that host and device share, each with an address of its own.
struct Buffer {
  std::byte* host = nullptr;
  uint64_t address = 0;  // the device's
  size_t n_bytes = 0;
  void* handle = nullptr;
};

// Opens the system's device, once. kDeviceUnavailable where there is none that will do.
Status open_host();

// Zero-filled. Any thread may create and release.
Result<Buffer> create_buffer(size_t n_bytes);
// Bytes that never change, for kernels to read: a copy, or the pages that they are in. `host` and
// n_bytes say of which bytes.
Result<Buffer> share_weights(std::span<const std::byte> weights);
// What share_weights() may take; SIZE_MAX where it takes nothing.
Result<size_t> weight_room();
void release_buffer(const Buffer& buffer);

// The pages that these bytes are in. A mapping consists of whole ones.
inline std::span<const std::byte> pages_around(std::span<const std::byte> bytes,
                                               size_t page_bytes) {
  const size_t before = reinterpret_cast<uintptr_t>(bytes.data()) % page_bytes;
  const size_t n = (before + bytes.size() + page_bytes - 1) / page_bytes * page_bytes;
  return {bytes.data() - before, n};
}

class Queue {
 public:
  static Result<std::unique_ptr<Queue>> create();
  virtual ~Queue() = default;
  // Behind what was queued before. args: `offset` bytes into a buffer, a multiple of 256, and
  // unchanged until finish().
  virtual Status launch(const char* kernel, const Buffer& args, size_t offset, Grid grid,
                        int n_threads) = 0;
  // Runs what is queued, and waits.
  virtual Status finish() = 0;
};

}  // namespace edge::gpu::shared
