// Vulkan's half of gpu/shared_host.h.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

#include "backends/gpu/shared_host.h"
#include "backends/vulkan/commands.h"
#include "backends/vulkan/heaps.h"
#include "backends/vulkan/pipelines.h"

namespace edge::gpu::shared {
namespace {

using namespace vulkan;

constexpr int kLaunchesPerList = 128;  // after which the device begins with what there is
constexpr size_t kStagingBytes = size_t{16} << 20;

// Of the process; never destroyed, as memory may be released at exit.
struct Memory {
  std::mutex mutex;
  Heaps heaps;
};
Memory& memory() {
  static Memory& one = *new Memory;
  return one;
}

bool fits(const Grid& grid) {
  const int64_t wanted[] = {grid.x, grid.y, grid.z};
  for (int i = 0; i < 3; ++i) {
    if (wanted[i] > int64_t{driver().most_groups[i]}) return false;
  }
  return true;
}

class VulkanQueue final : public Queue {
 public:
  Status open() { return commands_.open(); }

  Status launch(const char* kernel, const Buffer& args, size_t offset, Grid grid, int) override {
    if (grid.x <= 0 || grid.y <= 0 || grid.z <= 0) return {};
    if (!fits(grid)) {
      return {Code::kFeatureUnsupported, std::string("Vulkan: too many groups of ") + kernel +
                                             " for " + driver().device_name +
                                             "; load with backend 'cpu'"};
    }
    EDGE_ASSIGN_OR_RETURN(const VkCommandBuffer list, commands_.list());
    EDGE_ASSIGN_OR_RETURN(const Pipeline pipeline, pipeline_of(kernel));
    const uint64_t at = args.address + offset;
    const Functions& call = driver().call;
    call.vkCmdBindPipeline(list, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.pipeline);
    call.vkCmdPushConstants(list, pipeline.layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof at, &at);
    call.vkCmdDispatch(list, static_cast<uint32_t>(grid.x), static_cast<uint32_t>(grid.y),
                       static_cast<uint32_t>(grid.z));
    commands_.barrier(list);
    if (++n_launches_ % kLaunchesPerList != 0) return {};
    return commands_.submit();
  }

  Status finish() override { return commands_.finish(); }

 private:
  Commands commands_;
  int n_launches_ = 0;
};

// Through memory that the host sees, a part at a time.
Status upload(std::span<const std::byte> from, const Block& to) {
  EDGE_ASSIGN_OR_RETURN(const Block staging,
                        allocate_block(std::min(from.size(), kStagingBytes), Place::kShared));
  Commands commands;
  Status status = commands.open();
  for (size_t at = 0; status.is_ok() && at < from.size(); at += kStagingBytes) {
    const size_t n = std::min(kStagingBytes, from.size() - at);
    std::memcpy(staging.mapped, from.data() + at, n);
    const auto list = commands.list();
    status = list.status();
    if (!status.is_ok()) break;
    const VkBufferCopy part = {0, at, n};
    driver().call.vkCmdCopyBuffer(list.value(), staging.buffer, to.buffer, 1, &part);
    commands.barrier(list.value());
    status = commands.finish();
  }
  free_block(staging);
  return status;
}

// So that it is tested where all memory is the host's.
bool stages_always() {
  const char* set = std::getenv("EDGELLM_VULKAN_STAGING");
  return set != nullptr && std::string_view(set) == "1";
}

}  // namespace

Status open_host() { return open_driver(); }

Result<Buffer> create_buffer(size_t n_bytes) {
  const std::lock_guard lock(memory().mutex);
  EDGE_ASSIGN_OR_RETURN(const Buffer buffer, memory().heaps.allocate(n_bytes));
  std::memset(buffer.host, 0, n_bytes);
  return buffer;
}

// A copy, in memory of the device.
Result<Buffer> share_weights(std::span<const std::byte> weights) {
  EDGE_ASSIGN_OR_RETURN(const Block block, allocate_block(weights.size(), Place::kDevice));
  if (block.mapped != nullptr && !stages_always()) {
    std::memcpy(block.mapped, weights.data(), weights.size());
  } else if (const Status status = upload(weights, block); !status.is_ok()) {
    free_block(block);
    return status;
  }
  return Buffer{const_cast<std::byte*>(weights.data()), block.address, weights.size(),
                new Block(block)};
}

Result<size_t> weight_room() {
  const size_t n_free = free_memory();
  return n_free - std::min(n_free, kStepBytes);
}

void release_buffer(const Buffer& buffer) {
  const std::lock_guard lock(memory().mutex);
  if (memory().heaps.release(buffer)) return;
  const std::unique_ptr<const Block> weights(static_cast<const Block*>(buffer.handle));
  free_block(*weights);
}

Result<std::unique_ptr<Queue>> Queue::create() {
  auto queue = std::make_unique<VulkanQueue>();
  EDGE_RETURN_IF_ERROR(queue->open());
  return std::unique_ptr<Queue>(std::move(queue));
}

}  // namespace edge::gpu::shared
