#include "backends/vulkan/candidate.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <vector>

namespace edge::vulkan {
namespace {

constexpr uint32_t kGroupThreads = 256;
constexpr uint32_t kGroupBytes = 32768;  // of shared memory

// What a device has of it all.
struct Found {
  WantedFeatures features;
  VkPhysicalDeviceProperties2 properties = {};
  VkPhysicalDeviceVulkan12Properties of12 = {};
  VkPhysicalDeviceMaintenance3Properties memory = {};
};

void look_at(const Functions& call, VkPhysicalDevice device, Found& to) {
  to.properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
  to.properties.pNext = &to.of12;
  to.of12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES;
  to.of12.pNext = &to.memory;
  to.memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES;
  call.vkGetPhysicalDeviceProperties2(device, &to.properties);
  call.vkGetPhysicalDeviceFeatures2(device, &to.features.all);
}

// What it lacks; empty: nothing.
std::string lack_of(const Found& found) {
  if (found.properties.properties.apiVersion < VK_API_VERSION_1_2) return "Vulkan 1.2";
  const VkPhysicalDeviceLimits& limits = found.properties.properties.limits;
  const struct {
    bool is_there;
    const char* name;
  } needed[] = {
      {found.features.all.features.shaderInt64 != VK_FALSE, "shaderInt64"},
      {found.features.of11.storageBuffer16BitAccess != VK_FALSE, "storageBuffer16BitAccess"},
      {found.features.of12.storageBuffer8BitAccess != VK_FALSE, "storageBuffer8BitAccess"},
      {found.features.of12.shaderInt8 != VK_FALSE, "shaderInt8"},
      {found.features.of12.scalarBlockLayout != VK_FALSE, "scalarBlockLayout"},
      {found.features.of12.bufferDeviceAddress != VK_FALSE, "bufferDeviceAddress"},
      {found.of12.shaderSignedZeroInfNanPreserveFloat32 != VK_FALSE,
       "shaderSignedZeroInfNanPreserveFloat32"},
      {limits.maxComputeSharedMemorySize >= kGroupBytes, "32 KiB of shared memory"},
      {limits.maxComputeWorkGroupInvocations >= kGroupThreads &&
           limits.maxComputeWorkGroupSize[0] >= kGroupThreads,
       "groups of 256 threads"},
  };
  for (const auto& feature : needed) {
    if (!feature.is_there) return feature.name;
  }
  return {};
}

int rank_of(VkPhysicalDeviceType type) {
  switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
      return 4;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
      return 3;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
      return 2;
    default:
      return 1;
  }
}

// Of a queue family that computes; -1: none.
int compute_family(const Functions& call, VkPhysicalDevice device) {
  uint32_t n = 0;
  call.vkGetPhysicalDeviceQueueFamilyProperties(device, &n, nullptr);
  std::vector<VkQueueFamilyProperties> families(n);
  call.vkGetPhysicalDeviceQueueFamilyProperties(device, &n, families.data());
  for (uint32_t i = 0; i < n; ++i) {
    if ((families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) != 0) return static_cast<int>(i);
  }
  return -1;
}

bool has_extension(const Functions& call, VkPhysicalDevice device, std::string_view name) {
  uint32_t n = 0;
  call.vkEnumerateDeviceExtensionProperties(device, nullptr, &n, nullptr);
  std::vector<VkExtensionProperties> all(n);
  call.vkEnumerateDeviceExtensionProperties(device, nullptr, &n, all.data());
  return std::ranges::any_of(all, [&](const VkExtensionProperties& one) {
    return name == static_cast<const char*>(one.extensionName);
  });
}

Candidate candidate_of(const Found& found, VkPhysicalDevice device, int family) {
  const VkPhysicalDeviceProperties& properties = found.properties.properties;
  Candidate candidate;
  candidate.device = device;
  candidate.name = static_cast<const char*>(properties.deviceName);
  candidate.queue_family = static_cast<uint32_t>(family);
  candidate.has_f64 = found.features.all.features.shaderFloat64 != VK_FALSE;
  candidate.most_bytes = found.memory.maxMemoryAllocationSize;
  std::copy_n(properties.limits.maxComputeWorkGroupCount, 3, candidate.most_groups);
  candidate.rank = rank_of(properties.deviceType);
  return candidate;
}

}  // namespace

WantedFeatures::WantedFeatures(bool wants_f64) {
  all.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  all.pNext = &of11;
  of11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
  of11.pNext = &of12;
  of12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
  all.features.shaderInt64 = VK_TRUE;
  all.features.shaderFloat64 = wants_f64 ? VK_TRUE : VK_FALSE;
  of11.storageBuffer16BitAccess = VK_TRUE;
  of12.storageBuffer8BitAccess = VK_TRUE;
  of12.shaderInt8 = VK_TRUE;
  of12.scalarBlockLayout = VK_TRUE;
  of12.bufferDeviceAddress = VK_TRUE;
}

Result<Candidate> choose_device(const Functions& call, VkInstance instance) {
  const char* named = std::getenv("EDGELLM_VULKAN_DEVICE");
  const std::string_view part = named == nullptr ? "" : named;
  uint32_t n = 0;
  if (call.vkEnumeratePhysicalDevices(instance, &n, nullptr) != VK_SUCCESS) n = 0;
  std::vector<VkPhysicalDevice> devices(n);
  if (n > 0) call.vkEnumeratePhysicalDevices(instance, &n, devices.data());
  Candidate best;
  std::string others;
  for (VkPhysicalDevice device : devices) {
    Found found;
    look_at(call, device, found);
    const int family = compute_family(call, device);
    Candidate candidate = candidate_of(found, device, family);
    candidate.tells_budget = has_extension(call, device, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    const bool is_named = candidate.name.find(part) != std::string::npos;
    const std::string lack = !is_named    ? "the name in EDGELLM_VULKAN_DEVICE"
                             : family < 0 ? "a queue that computes"
                                          : lack_of(found);
    if (!lack.empty()) others += (others.empty() ? "" : ", ") + candidate.name + " lacks " + lack;
    if (lack.empty() && candidate.rank > best.rank) best = candidate;
  }
  if (best.rank > 0) return best;
  return {Code::kDeviceUnavailable,
          "Vulkan: no device that can run the kernels (" +
              (others.empty() ? "there is none; install a driver" : others) +
              "); load with backend 'cpu'"};
}

}  // namespace edge::vulkan
