#include "backends/vulkan/driver.h"

#include <algorithm>
#include <cstdlib>

#include "backends/vulkan/candidate.h"
#include "backends/vulkan/numbers.h"
#include "base/os_library.h"

#if defined(_WIN32)
#include <process.h>
#define EDGE_PROCESS_ID _getpid
#else
#include <unistd.h>
#define EDGE_PROCESS_ID getpid
#endif

namespace edge::vulkan {
namespace {

#if defined(_WIN32)
constexpr const char* kLoader = "vulkan-1.dll";
#elif defined(__APPLE__)
constexpr const char* kLoader = "libvulkan.1.dylib";
#elif defined(__ANDROID__)
constexpr const char* kLoader = "libvulkan.so";
#else
constexpr const char* kLoader = "libvulkan.so.1";
#endif
constexpr uint32_t kApiVersion = VK_API_VERSION_1_2;

Status unavailable(const std::string& why) {
  return {Code::kDeviceUnavailable, "Vulkan: " + why + "; load with backend 'cpu'"};
}

Result<VkInstance> create_instance(PFN_vkGetInstanceProcAddr find) {
  const auto version =
      reinterpret_cast<PFN_vkEnumerateInstanceVersion>(find(nullptr, "vkEnumerateInstanceVersion"));
  const auto create = reinterpret_cast<PFN_vkCreateInstance>(find(nullptr, "vkCreateInstance"));
  uint32_t found = 0;
  if (create == nullptr || version == nullptr || version(&found) != VK_SUCCESS ||
      found < kApiVersion) {
    return unavailable("the system's loader is older than Vulkan 1.2");
  }
  VkApplicationInfo application = {};
  application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
  application.pApplicationName = "edgellm";
  application.apiVersion = kApiVersion;
  VkInstanceCreateInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
  info.pApplicationInfo = &application;
  VkInstance instance = nullptr;
  if (create(&info, nullptr, &instance) != VK_SUCCESS) {
    return unavailable("no driver is installed");
  }
  return instance;
}

Status find_functions(PFN_vkGetInstanceProcAddr find, VkInstance instance, Functions& to) {
#define EDGE_VULKAN(name)                                        \
  to.name = reinterpret_cast<PFN_##name>(find(instance, #name)); \
  if (to.name == nullptr) return unavailable("the loader has no " #name);
#include "backends/vulkan/functions.inc"
#undef EDGE_VULKAN
  return {};
}

Status create_device(const Candidate& chosen, Driver& to) {
  const float priority = 1;
  VkDeviceQueueCreateInfo queue = {};
  queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
  queue.queueFamilyIndex = chosen.queue_family;
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;
  WantedFeatures wanted(chosen.has_f64);
  VkDeviceCreateInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
  info.pNext = &wanted.all;
  info.queueCreateInfoCount = 1;
  info.pQueueCreateInfos = &queue;
  const VkResult made = to.call.vkCreateDevice(chosen.device, &info, nullptr, &to.device);
  if (made != VK_SUCCESS) {
    return unavailable(chosen.name + " cannot be opened (" + std::to_string(made) + ")");
  }
  to.physical = chosen.device;
  to.queue_family = chosen.queue_family;
  to.device_name = chosen.name;
  to.has_f64 = chosen.has_f64;
  to.most_bytes = chosen.most_bytes;
  for (int i = 0; i < 3; ++i) to.most_groups[i] = chosen.most_groups[i];
  to.call.vkGetDeviceQueue(to.device, chosen.queue_family, 0, &to.queue);
  VkPhysicalDeviceMemoryProperties2 memory = {};
  memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
  to.call.vkGetPhysicalDeviceMemoryProperties2(chosen.device, &memory);
  to.memory = memory.memoryProperties;
  to.tells_budget = chosen.tells_budget;
  to.process = static_cast<int>(EDGE_PROCESS_ID());
  return {};
}

Status open(Driver& to) {
  const auto loader = library_function(kLoader, "vkGetInstanceProcAddr");
  if (!loader.is_ok()) {
    return unavailable("no loader (" + loader.status().message() +
                       "); install the system's Vulkan driver (Debian: mesa-vulkan-drivers)");
  }
  const auto find = reinterpret_cast<PFN_vkGetInstanceProcAddr>(loader.value());
  EDGE_ASSIGN_OR_RETURN(const VkInstance instance, create_instance(find));
  EDGE_RETURN_IF_ERROR(find_functions(find, instance, to.call));
  EDGE_ASSIGN_OR_RETURN(const Candidate chosen, choose_device(to.call, instance));
  return create_device(chosen, to);
}

}  // namespace

Driver& driver() {
  static Driver& one = *new Driver;
  return one;
}

Status open_driver() {
  static std::mutex mutex;
  static bool is_open = false;
  const std::lock_guard lock(mutex);
  if (is_open) return check_process();
  if (driver().device == nullptr) EDGE_RETURN_IF_ERROR(open(driver()));
  EDGE_RETURN_IF_ERROR(check_numbers(driver()));
  is_open = true;
  return {};
}

Status status_of(VkResult result, const std::string& what) {
  if (result == VK_SUCCESS) return {};
  const bool is_memory =
      result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY;
  return {is_memory ? Code::kOutOfMemory : Code::kDeviceFailed,
          "Vulkan: " + what + ": error " + std::to_string(result)};
}

size_t free_memory() {
  VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {};
  budget.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT;
  VkPhysicalDeviceMemoryProperties2 memory = {};
  memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
  if (driver().tells_budget) memory.pNext = &budget;
  driver().call.vkGetPhysicalDeviceMemoryProperties2(driver().physical, &memory);
  VkDeviceSize most = 0;
  for (uint32_t i = 0; i < driver().memory.memoryHeapCount; ++i) {
    const VkMemoryHeap& heap = driver().memory.memoryHeaps[i];
    if ((heap.flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) == 0) continue;
    const VkDeviceSize used = std::min(budget.heapUsage[i], budget.heapBudget[i]);
    most = std::max(most, driver().tells_budget ? budget.heapBudget[i] - used : heap.size);
  }
  const char* said = std::getenv("EDGELLM_VULKAN_MEMORY");
  const unsigned long long limit = said == nullptr ? 0 : std::strtoull(said, nullptr, 10);
  return static_cast<size_t>(limit > 0 ? std::min<VkDeviceSize>(most, limit) : most);
}

Status check_process() {
  if (driver().process == static_cast<int>(EDGE_PROCESS_ID())) return {};
  return {
      Code::kDeviceFailed,
      "Vulkan: the device was opened before fork(); load the model in the process that uses it"};
}

}  // namespace edge::vulkan
