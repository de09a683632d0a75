// Memory that host and device share, in blocks from the driver, of which it gives but a few
// thousand.
#pragma once

#include <list>
#include <map>

#include "backends/gpu/shared_host.h"
#include "backends/vulkan/driver.h"

namespace edge::vulkan {

// A buffer with memory of its own. mapped: null where the host does not see it.
struct Block {
  VkBuffer buffer = nullptr;
  VkDeviceMemory memory = nullptr;
  std::byte* mapped = nullptr;
  VkDeviceAddress address = 0;
  VkDeviceSize n_bytes = 0;
};

enum class Place { kShared, kDevice };
// kShared: the host sees it. kDevice: as near to the device as there is, seen by the host or not.
Result<Block> allocate_block(VkDeviceSize n_bytes, Place place);
void free_block(const Block& block);

// Parts of shared blocks. Not for several threads at once.
class Heaps {
 public:
  Result<gpu::shared::Buffer> allocate(size_t n_bytes);
  // False: it is no part of these.
  bool release(const gpu::shared::Buffer& buffer);

 private:
  struct Heap {
    Block block;
    std::map<VkDeviceSize, VkDeviceSize> free;  // size by offset
  };
  std::list<Heap> heaps_;
};

}  // namespace edge::vulkan
