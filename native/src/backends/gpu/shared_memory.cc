#include "backends/gpu/shared_memory.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

namespace edge::gpu::shared {
namespace {

constexpr size_t kBoxBytes = size_t{256} << 10;
constexpr size_t kAlignment = 256;

// Never destroyed: PageBuffers may be released at exit.
struct Registry {
  std::mutex mutex;
  std::map<uintptr_t, Buffer> by_address;  // of the host
};
Registry& registry() {
  static Registry& one = *new Registry;
  return one;
}

uintptr_t number_of(const void* at) { return reinterpret_cast<uintptr_t>(at); }

void release_shared(std::byte* data, size_t) {
  Buffer buffer;
  {
    const std::lock_guard lock(registry().mutex);
    const auto found = registry().by_address.find(number_of(data));
    buffer = found->second;
    registry().by_address.erase(found);
  }
  release_buffer(buffer);
}

}  // namespace

Result<PageBuffer> allocate_shared(size_t n_bytes) {
  EDGE_ASSIGN_OR_RETURN(const Buffer buffer, create_buffer(std::max<size_t>(n_bytes, 1)));
  const std::lock_guard lock(registry().mutex);
  registry().by_address[number_of(buffer.host)] = buffer;
  return PageBuffer::adopt(buffer.host, n_bytes, release_shared);
}

Buffer shared_buffer(const void* from) {
  const std::lock_guard lock(registry().mutex);
  const auto& all = registry().by_address;
  auto after = all.upper_bound(number_of(from));
  if (after == all.begin()) return {};
  const Buffer& before = std::prev(after)->second;
  return number_of(from) - number_of(before.host) < before.n_bytes ? before : Buffer{};
}

std::byte* shared_address(const void* from) {
  const Buffer buffer = shared_buffer(from);
  if (buffer.host == nullptr) return nullptr;
  return reinterpret_cast<std::byte*>(buffer.address + (number_of(from) - number_of(buffer.host)));
}

void Mailbox::reset() {
  box_ = 0;
  used_ = 0;
}

Result<Mailbox::Sent> Mailbox::send(std::span<const std::byte> bytes) {
  while (box_ < boxes_.size() && boxes_[box_].size_bytes() - used_ < bytes.size()) {
    ++box_;
    used_ = 0;
  }
  if (box_ == boxes_.size()) {
    EDGE_ASSIGN_OR_RETURN(PageBuffer box, allocate_shared(std::max(kBoxBytes, bytes.size())));
    boxes_.push_back(std::move(box));
  }
  const PageBuffer& box = boxes_[box_];
  const Sent sent = {shared_buffer(box.data()), used_};
  if (!bytes.empty()) std::memcpy(box.data() + used_, bytes.data(), bytes.size());
  const size_t end = (used_ + bytes.size() + kAlignment - 1) / kAlignment * kAlignment;
  used_ = std::min(box.size_bytes(), end);
  return sent;
}

}  // namespace edge::gpu::shared
