// Memory for the host and the device, by the host's address. Of the process, as pages outlive the
// backend that they were made for.
#pragma once

#include <vector>

#include "backends/gpu/shared_host.h"
#include "base/os.h"

namespace edge::gpu::shared {

// Zero-filled; released with the PageBuffer.
Result<PageBuffer> allocate_shared(size_t n_bytes);
// Of which `from` is a byte; without handle: not from allocate_shared().
Buffer shared_buffer(const void* from);
// Where the device sees that byte; null: not from allocate_shared().
std::byte* shared_address(const void* from);

// Small things that a step's kernels read. What was sent is there until reset(), which is for when
// nothing is queued.
class Mailbox {
 public:
  struct Sent {
    Buffer buffer;
    size_t offset = 0;
    std::byte* address() const { return reinterpret_cast<std::byte*>(buffer.address + offset); }
  };
  void reset();
  Result<Sent> send(std::span<const std::byte> bytes);

 private:
  std::vector<PageBuffer> boxes_;
  size_t box_ = 0;  // that has room
  size_t used_ = 0;
};

}  // namespace edge::gpu::shared
