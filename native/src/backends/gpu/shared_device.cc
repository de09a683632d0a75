#include "backends/gpu/shared_device.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "backends/gpu/shared_host.h"
#include "backends/gpu/shared_memory.h"

namespace edge::gpu::shared {
namespace {

class SharedDevice final : public Device {
 public:
  SharedDevice(const Traits& traits, std::unique_ptr<Queue> queue)
      : traits_(traits), queue_(std::move(queue)) {}
  SharedDevice(const SharedDevice&) = delete;
  SharedDevice& operator=(const SharedDevice&) = delete;
  ~SharedDevice() override {
    static_cast<void>(queue_->finish());
    for (const Buffer& weights : loaded_) release_buffer(weights);
  }

  Status open() {
    EDGE_ASSIGN_OR_RETURN(flag_, allocate_shared(sizeof(int32_t)));
    return {};
  }

  const char* name() const override { return traits_.name; }
  const char* title() const override { return traits_.title; }
  bool has_f64() const override { return false; }
  bool has_float_matrices() const override { return traits_.has_float_matrices; }

  PageBuffer::Allocate allocator() const override { return allocate_shared; }

  Status load(std::span<const std::byte> weights) override {
    if (weights.empty() || loaded(weights.data(), weights.size()) != nullptr) return {};
    EDGE_ASSIGN_OR_RETURN(const Buffer buffer, share_weights(weights));
    loaded_.push_back(buffer);
    return {};
  }

  Result<size_t> weight_room() const override { return shared::weight_room(); }

  const std::byte* loaded(const void* from, size_t n_bytes) const override {
    const auto at = reinterpret_cast<uintptr_t>(from);
    for (const Buffer& buffer : loaded_) {
      const auto begin = reinterpret_cast<uintptr_t>(buffer.host);
      if (at < begin || at - begin > buffer.n_bytes) continue;
      if (n_bytes > buffer.n_bytes - (at - begin)) continue;
      return reinterpret_cast<const std::byte*>(buffer.address + (at - begin));
    }
    return nullptr;
  }

  std::byte* address(const void* allocated) const override { return shared_address(allocated); }

  Result<std::byte*> room(Room which, size_t n_bytes) override {
    PageBuffer& room = rooms_[static_cast<size_t>(which)];
    if (room.size_bytes() < n_bytes) {
      EDGE_RETURN_IF_ERROR(wait());  // for kernels that use it
      EDGE_ASSIGN_OR_RETURN(room, allocate_shared(n_bytes));
    }
    return shared_address(room.data());
  }

  Result<const std::byte*> send(std::span<const std::byte> bytes) override {
    EDGE_ASSIGN_OR_RETURN(const Mailbox::Sent sent, mailbox_.send(bytes));
    return static_cast<const std::byte*>(sent.address());
  }

  Status begin() override {
    EDGE_RETURN_IF_ERROR(wait());
    mailbox_.reset();
    *seen_flag() = 0;
    return {};
  }

  int32_t* flag() override { return reinterpret_cast<int32_t*>(shared_address(flag_.data())); }

  Status launch(const char* kernel, std::span<const std::byte> args, Grid grid,
                int n_threads) override {
    EDGE_ASSIGN_OR_RETURN(const Mailbox::Sent sent, mailbox_.send(args));
    return queue_->launch(kernel, sent.buffer, sent.offset, grid, n_threads);
  }

  Status wait() override { return queue_->finish(); }

  Status fetch(const void* from, size_t n_bytes, void* to) override {
    EDGE_RETURN_IF_ERROR(wait());  // later kernels may overwrite it
    std::memcpy(to, from, n_bytes);
    return {};
  }

  Result<bool> end() override {
    EDGE_RETURN_IF_ERROR(wait());
    return *seen_flag() == 0;
  }

 private:
  int32_t* seen_flag() const { return reinterpret_cast<int32_t*>(flag_.data()); }

  const Traits traits_;
  std::unique_ptr<Queue> queue_;
  std::vector<Buffer> loaded_;
  Mailbox mailbox_;
  std::array<PageBuffer, kRooms> rooms_;
  PageBuffer flag_;
};

}  // namespace

Result<std::unique_ptr<Device>> open_device(const Traits& traits) {
  EDGE_RETURN_IF_ERROR(open_host());
  EDGE_ASSIGN_OR_RETURN(std::unique_ptr<Queue> queue, Queue::create());
  auto device = std::make_unique<SharedDevice>(traits, std::move(queue));
  EDGE_RETURN_IF_ERROR(device->open());
  return std::unique_ptr<Device>(std::move(device));
}

}  // namespace edge::gpu::shared
