#include "backends/vulkan/numbers.h"

#include <cmath>
#include <cstring>
#include <random>

#include "backends/vulkan/commands.h"
#include "backends/vulkan/heaps.h"
#include "backends/vulkan/pipelines.h"
#include "base/fma.h"

namespace edge::vulkan {
namespace {

constexpr size_t kGroup = 64;
constexpr int kTriples = 2048;

// check_numbers.comp's.
struct Args {
  uint64_t triples;
  uint64_t results;
  int32_t n;
};

// Sums that cancel all but what a product's rounding drops, and sums of numbers of any size.
std::vector<Triple> triples() {
  std::mt19937 random(7);
  const auto any = [&] {
    const float mantissa = 1.0f + static_cast<float>(random() >> 9) * 0x1p-23f;
    const float x = std::ldexp(mantissa, static_cast<int>(random() % 60) - 30);
    return random() % 2 == 0 ? x : -x;
  };
  std::vector<Triple> made;
  for (int i = 0; i < kTriples; ++i) {
    const Triple x = {any(), any(), any()};
    made.push_back(i % 2 == 0 ? x : Triple{x.a, x.b, -(x.a * x.b)});
  }
  return made;
}

bool is_same(const Numbers& a, const Numbers& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

Result<bool> computes_right(std::span<const uint32_t> code) {
  const std::vector<Triple> asked = triples();
  EDGE_ASSIGN_OR_RETURN(const std::vector<Numbers> found, compute_numbers(code, 0, asked));
  for (size_t i = 0; i < asked.size(); ++i) {
    if (!is_same(found[i], numbers_of(asked[i]))) return false;
  }
  return true;
}

Status run(const Pipeline& pipeline, uint64_t args, size_t n) {
  Commands commands;
  EDGE_RETURN_IF_ERROR(commands.open());
  EDGE_ASSIGN_OR_RETURN(const VkCommandBuffer list, commands.list());
  const Functions& call = driver().call;
  call.vkCmdBindPipeline(list, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.pipeline);
  call.vkCmdPushConstants(list, pipeline.layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof args,
                          &args);
  call.vkCmdDispatch(list, static_cast<uint32_t>((n + kGroup - 1) / kGroup), 1, 1);
  commands.barrier(list);
  return commands.finish();
}

}  // namespace

Numbers numbers_of(const Triple& x) {
  return {fma_exact(x.a, x.b, x.c), x.a / x.b, std::sqrt(std::fabs(x.c))};
}

Result<std::vector<Numbers>> compute_numbers(std::span<const uint32_t> code, int32_t nudge,
                                             std::span<const Triple> triples) {
  Constants constants;
  constants.nudge = nudge;
  EDGE_ASSIGN_OR_RETURN(const Pipeline pipeline, create_pipeline(code, constants));
  const size_t first = sizeof(Args), n_bytes = triples.size_bytes();
  EDGE_ASSIGN_OR_RETURN(const Block block, allocate_block(first + 2 * n_bytes, Place::kShared));
  const Args args = {block.address + first, block.address + first + n_bytes,
                     static_cast<int32_t>(triples.size())};
  std::memcpy(block.mapped, &args, sizeof args);
  std::memcpy(block.mapped + first, triples.data(), n_bytes);
  const Status status = run(pipeline, block.address, triples.size());
  std::vector<Numbers> results(triples.size());
  std::memcpy(results.data(), block.mapped + first + n_bytes, n_bytes);
  free_block(block);
  driver().call.vkDestroyPipeline(driver().device, pipeline.pipeline, nullptr);
  if (!status.is_ok()) return status;
  return results;
}

Status check_numbers(Driver& driver) {
  const Shader* shader = parse_kernel("check_numbers").shader;
  EDGE_ASSIGN_OR_RETURN(driver.rounds_fma_once, computes_right(shader->fused));
  if (driver.rounds_fma_once) return {};
  if (driver.has_f64) {
    EDGE_ASSIGN_OR_RETURN(const bool is_right, computes_right(shader->by_f64));
    if (is_right) return {};
  }
  return {Code::kDeviceUnavailable,
          "Vulkan: " + driver.device_name +
              " does not round sums of products once, nor has it f64 to do without; load with "
              "backend 'cpu'"};
}

}  // namespace edge::vulkan
