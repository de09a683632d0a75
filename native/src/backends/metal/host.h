// What only Apple's frameworks can do, as little as that is: host.mm. The emulator has its own
// (tests/emulation/metal/host.cc), so that all above it is tested without them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "backends/gpu/device.h"
#include "base/status.h"

namespace edge::metal {

// Memory that host and device share, each with an address of its own.
struct Buffer {
  std::byte* host = nullptr;
  uint64_t address = 0;  // the device's
  size_t n_bytes = 0;
  void* handle = nullptr;
};

// Opens the system's device, once. kDeviceUnavailable where there is none or one before Metal 3.
Status open_host();

// Zero-filled; from a heap. Any thread may create and release.
Result<Buffer> create_buffer(size_t n_bytes);
// Whole pages of this process, without a copy, for kernels to read.
Result<Buffer> wrap_pages(std::span<const std::byte> pages);
void release_buffer(const Buffer& buffer);

class Queue {
 public:
  static Result<std::unique_ptr<Queue>> create();
  virtual ~Queue() = default;
  // Behind what was queued before. args: `offset` bytes into a buffer, a multiple of 256, and
  // unchanged until finish().
  virtual Status launch(const char* kernel, const Buffer& args, size_t offset, gpu::Grid grid,
                        int n_threads) = 0;
  // Runs what is queued, and waits.
  virtual Status finish() = 0;
};

}  // namespace edge::metal
