#include "backends/vulkan/commands.h"

#include <cstdint>

namespace edge::vulkan {
namespace {

constexpr const char* kWhat = "a list of commands";

}  // namespace

Commands::~Commands() {
  if (!check_process().is_ok()) return;
  static_cast<void>(finish());
  for (const List& list : lists_) {
    driver().call.vkDestroyFence(driver().device, list.fence, nullptr);
    driver().call.vkDestroyCommandPool(driver().device, list.pool, nullptr);
  }
}

Status Commands::open() { return add_list(); }

Status Commands::add_list() {
  const Functions& call = driver().call;
  VkCommandPoolCreateInfo pool = {};
  pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  pool.flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT;
  pool.queueFamilyIndex = driver().queue_family;
  List& list = lists_.emplace_back();
  EDGE_RETURN_IF_ERROR(
      status_of(call.vkCreateCommandPool(driver().device, &pool, nullptr, &list.pool), kWhat));
  VkCommandBufferAllocateInfo buffer = {};
  buffer.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
  buffer.commandPool = list.pool;
  buffer.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  buffer.commandBufferCount = 1;
  EDGE_RETURN_IF_ERROR(
      status_of(call.vkAllocateCommandBuffers(driver().device, &buffer, &list.buffer), kWhat));
  VkFenceCreateInfo fence = {};
  fence.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO;
  return status_of(call.vkCreateFence(driver().device, &fence, nullptr, &list.fence), kWhat);
}

Result<VkCommandBuffer> Commands::list() {
  EDGE_RETURN_IF_ERROR(check_process());
  if (is_recording_) return lists_[n_submitted_].buffer;
  if (n_submitted_ == lists_.size()) EDGE_RETURN_IF_ERROR(add_list());
  const List& list = lists_[n_submitted_];
  EDGE_RETURN_IF_ERROR(
      status_of(driver().call.vkResetCommandPool(driver().device, list.pool, 0), kWhat));
  VkCommandBufferBeginInfo begin = {};
  begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
  begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
  EDGE_RETURN_IF_ERROR(status_of(driver().call.vkBeginCommandBuffer(list.buffer, &begin), kWhat));
  is_recording_ = true;
  return list.buffer;
}

void Commands::barrier(VkCommandBuffer list) const {
  constexpr VkPipelineStageFlags kKernels =
      VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
  VkMemoryBarrier memory = {};
  memory.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
  memory.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
  memory.dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                         VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_HOST_READ_BIT;
  driver().call.vkCmdPipelineBarrier(list, kKernels, kKernels | VK_PIPELINE_STAGE_HOST_BIT, 0, 1,
                                     &memory, 0, nullptr, 0, nullptr);
}

Status Commands::submit() {
  if (!is_recording_) return {};
  is_recording_ = false;
  const List& list = lists_[n_submitted_];
  EDGE_RETURN_IF_ERROR(status_of(driver().call.vkEndCommandBuffer(list.buffer), kWhat));
  VkSubmitInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
  info.commandBufferCount = 1;
  info.pCommandBuffers = &list.buffer;
  const std::lock_guard lock(driver().queue_mutex);
  EDGE_RETURN_IF_ERROR(
      status_of(driver().call.vkQueueSubmit(driver().queue, 1, &info, list.fence), "the queue"));
  ++n_submitted_;
  return {};
}

Status Commands::finish() {
  EDGE_RETURN_IF_ERROR(check_process());
  Status status = submit();
  for (size_t i = 0; i < n_submitted_; ++i) {
    const VkFence fence = lists_[i].fence;
    const VkResult waited =
        driver().call.vkWaitForFences(driver().device, 1, &fence, VK_TRUE, UINT64_MAX);
    if (status.is_ok()) status = status_of(waited, "a step");
    driver().call.vkResetFences(driver().device, 1, &fence);
  }
  n_submitted_ = 0;
  return status;
}

}  // namespace edge::vulkan
