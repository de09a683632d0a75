// Lists of commands for the device's queue.
#pragma once

#include <vector>

#include "backends/vulkan/driver.h"

namespace edge::vulkan {

// Lists that are recorded, submitted and waited for; each reused afterwards. For one thread.
class Commands {
 public:
  Commands() = default;
  Commands(const Commands&) = delete;
  Commands& operator=(const Commands&) = delete;
  ~Commands();

  Status open();
  // What is recorded now; begins a list if there is none.
  Result<VkCommandBuffer> list();
  // What follows sees all that was written before.
  void barrier(VkCommandBuffer list) const;
  // Gives the list to the device, if there is one.
  Status submit();
  // Waits for all that was submitted.
  Status finish();

 private:
  struct List {
    VkCommandPool pool = nullptr;
    VkCommandBuffer buffer = nullptr;
    VkFence fence = nullptr;
  };
  Status add_list();

  std::vector<List> lists_;
  size_t n_submitted_ = 0;
  bool is_recording_ = false;  // lists_[n_submitted_]
};

}  // namespace edge::vulkan
