// The system's Vulkan: its loader, which is opened while the program runs, one device, and its
// queue. Of the process, opened once and never closed.
#pragma once

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#include <cstddef>
#include <mutex>
#include <string>

#include "base/status.h"

namespace edge::vulkan {

struct Functions {
#define EDGE_VULKAN(name) PFN_##name name = nullptr;
#include "backends/vulkan/functions.inc"
#undef EDGE_VULKAN
};

struct Driver {
  Functions call;
  VkPhysicalDevice physical = nullptr;
  VkDevice device = nullptr;
  VkQueue queue = nullptr;
  std::mutex queue_mutex;  // of what is submitted
  uint32_t queue_family = 0;
  std::string device_name;
  bool has_f64 = false;
  bool rounds_fma_once = false;  // numbers.h
  VkDeviceSize most_bytes = 0;   // of a buffer
  uint32_t most_groups[3] = {};  // of a launch
  VkPhysicalDeviceMemoryProperties memory = {};
  bool tells_budget = false;  // VK_EXT_memory_budget
  int process = 0;            // that opened it
};

// Opens it. kDeviceUnavailable, saying why, where there is no loader, no driver or no device that
// can run the kernels. EDGELLM_VULKAN_DEVICE names a device by a part of its name.
Status open_driver();
// After open_driver().
Driver& driver();

// kOutOfMemory or kDeviceFailed, saying what was tried.
Status status_of(VkResult result, const std::string& what);
// Free bytes of what is nearest to the device, as far as the driver tells, or less where
// EDGELLM_VULKAN_MEMORY says so (bytes).
size_t free_memory();
// kDeviceFailed in a child of the process that opened the driver, where nothing of it works.
Status check_process();

}  // namespace edge::vulkan
