#include "backends/vulkan/heaps.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace edge::vulkan {
namespace {

constexpr VkDeviceSize kHeapBytes = VkDeviceSize{16} << 20;
constexpr VkDeviceSize kUnit = 256;
constexpr VkMemoryPropertyFlags kSeen =
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;

VkDeviceSize rounded(VkDeviceSize n) { return (n + kUnit - 1) / kUnit * kUnit; }

// Every allocation a buffer of its own, so that validation on the device sees what goes beyond one.
bool is_apart() {
  const char* set = std::getenv("EDGELLM_VULKAN_APART");
  return set != nullptr && std::string_view(set) == "1";
}

// How well a kind of memory serves; 0: not at all. The host reads what kernels made: cached.
int score(VkMemoryPropertyFlags flags, Place place) {
  const int near = (flags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT) != 0 ? 2 : 0;
  if (place == Place::kDevice) return 1 + near;
  if ((flags & kSeen) != kSeen) return 0;
  return 1 + near + ((flags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT) != 0 ? 4 : 0);
}

// Kinds of memory for a buffer, the best first.
std::vector<uint32_t> kinds_for(uint32_t allowed, Place place) {
  const VkPhysicalDeviceMemoryProperties& memory = driver().memory;
  std::vector<uint32_t> kinds;
  for (uint32_t i = 0; i < memory.memoryTypeCount; ++i) {
    const bool is_allowed = (allowed >> i & 1) != 0;
    if (is_allowed && score(memory.memoryTypes[i].propertyFlags, place) > 0) kinds.push_back(i);
  }
  std::ranges::stable_sort(kinds, std::greater<>(), [&](uint32_t i) {
    return score(memory.memoryTypes[i].propertyFlags, place);
  });
  return kinds;
}

Status allocate_memory(Block& block, Place place) {
  const Functions& call = driver().call;
  VkMemoryRequirements needs = {};
  call.vkGetBufferMemoryRequirements(driver().device, block.buffer, &needs);
  VkMemoryAllocateFlagsInfo flags = {};
  flags.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO;
  flags.flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT;
  VkMemoryAllocateInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
  info.pNext = &flags;
  info.allocationSize = needs.size;
  VkResult result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
  for (const uint32_t kind : kinds_for(needs.memoryTypeBits, place)) {
    info.memoryTypeIndex = kind;
    result = call.vkAllocateMemory(driver().device, &info, nullptr, &block.memory);
    if (result != VK_SUCCESS) continue;
    EDGE_RETURN_IF_ERROR(status_of(
        call.vkBindBufferMemory(driver().device, block.buffer, block.memory, 0), "a buffer"));
    if ((driver().memory.memoryTypes[kind].propertyFlags & kSeen) != kSeen) return {};
    void* mapped = nullptr;
    result = call.vkMapMemory(driver().device, block.memory, 0, VK_WHOLE_SIZE, 0, &mapped);
    block.mapped = static_cast<std::byte*>(mapped);
    return status_of(result, "mapping memory");
  }
  return status_of(result, std::to_string(block.n_bytes) + " bytes");
}

}  // namespace

Result<Block> allocate_block(VkDeviceSize n_bytes, Place place) {
  EDGE_RETURN_IF_ERROR(check_process());
  if (n_bytes > driver().most_bytes) {
    return {Code::kOutOfMemory, "Vulkan: " + std::to_string(n_bytes) + " bytes, and a buffer of " +
                                    driver().device_name + " has at most " +
                                    std::to_string(driver().most_bytes) +
                                    "; load with backend 'cpu'"};
  }
  const Functions& call = driver().call;
  VkBufferCreateInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  info.size = n_bytes;
  info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
               VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
  Block block;
  block.n_bytes = n_bytes;
  EDGE_RETURN_IF_ERROR(
      status_of(call.vkCreateBuffer(driver().device, &info, nullptr, &block.buffer), "a buffer"));
  if (const Status status = allocate_memory(block, place); !status.is_ok()) {
    free_block(block);
    return status;
  }
  VkBufferDeviceAddressInfo address = {};
  address.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO;
  address.buffer = block.buffer;
  block.address = call.vkGetBufferDeviceAddress(driver().device, &address);
  return block;
}

void free_block(const Block& block) {
  if (!check_process().is_ok()) return;  // it is the parent's
  driver().call.vkDestroyBuffer(driver().device, block.buffer, nullptr);
  driver().call.vkFreeMemory(driver().device, block.memory, nullptr);
}

Result<gpu::shared::Buffer> Heaps::allocate(size_t n_bytes) {
  const VkDeviceSize n = rounded(std::max<VkDeviceSize>(n_bytes, 1));
  for (int tries = 0; tries < 2; ++tries) {
    for (Heap& heap : heaps_) {
      const auto room =
          std::ranges::find_if(heap.free, [&](const auto& part) { return part.second >= n; });
      if (room == heap.free.end()) continue;
      const auto [offset, size] = *room;
      heap.free.erase(room);
      if (size > n) heap.free[offset + n] = size - n;
      return gpu::shared::Buffer{heap.block.mapped + offset, heap.block.address + offset, n_bytes,
                                 &heap};
    }
    const VkDeviceSize heap_bytes = is_apart() ? n : std::max(n, kHeapBytes);
    EDGE_ASSIGN_OR_RETURN(const Block block, allocate_block(heap_bytes, Place::kShared));
    heaps_.push_back({block, {{0, block.n_bytes / kUnit * kUnit}}});
  }
  return {Code::kDeviceFailed, "Vulkan: a new heap has no room"};
}

bool Heaps::release(const gpu::shared::Buffer& buffer) {
  const auto is_it = [&](const Heap& heap) { return &heap == buffer.handle; };
  const auto heap = std::ranges::find_if(heaps_, is_it);
  if (heap == heaps_.end()) return false;
  VkDeviceSize offset = buffer.address - heap->block.address;
  VkDeviceSize size = rounded(std::max<VkDeviceSize>(buffer.n_bytes, 1));
  const auto next = heap->free.find(offset + size);
  if (next != heap->free.end()) {
    size += next->second;
    heap->free.erase(next);
  }
  const auto after = heap->free.upper_bound(offset);
  const auto before = after == heap->free.begin() ? heap->free.end() : std::prev(after);
  if (before != heap->free.end() && before->first + before->second == offset) {
    offset = before->first;
    size += before->second;
  }
  heap->free[offset] = size;
  if (size == heap->block.n_bytes / kUnit * kUnit) {
    free_block(heap->block);
    heaps_.erase(heap);
  }
  return true;
}

}  // namespace edge::vulkan
