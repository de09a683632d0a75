// Which of the system's devices: what kernels need of one, and the choice among those that have it.
#pragma once

#include <string>

#include "backends/vulkan/driver.h"

namespace edge::vulkan {

// Features that are asked for, or what a device has of them.
struct WantedFeatures {
  explicit WantedFeatures(bool wants_f64 = false);
  WantedFeatures(const WantedFeatures&) = delete;
  WantedFeatures& operator=(const WantedFeatures&) = delete;

  VkPhysicalDeviceFeatures2 all = {};
  VkPhysicalDeviceVulkan11Features of11 = {};
  VkPhysicalDeviceVulkan12Features of12 = {};
};

struct Candidate {
  VkPhysicalDevice device = nullptr;
  std::string name;
  uint32_t queue_family = 0;
  bool has_f64 = false;
  bool tells_budget = false;
  VkDeviceSize most_bytes = 0;
  uint32_t most_groups[3] = {};
  int rank = 0;
};

// The best of those that will do: one with memory of its own before one without, and both before a
// driver that computes on the CPU. kDeviceUnavailable says what each of the others lacks.
Result<Candidate> choose_device(const Functions& call, VkInstance instance);

}  // namespace edge::vulkan
