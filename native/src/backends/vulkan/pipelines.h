// Kernels as the device runs them, by the name that the host gives them: "matmul_a8_4_E4_16" is
// kernels/matmul_a8.comp for four rows of activations and weights in E4_16.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "backends/vulkan/driver.h"
#include "backends/vulkan/shaders.h"

namespace edge::vulkan {

struct Pipeline {
  VkPipeline pipeline = nullptr;
  VkPipelineLayout layout = nullptr;
};

// Constants of a pipeline, by their number in the kernels.
struct Constants {
  int32_t format = 0;         // 0
  int32_t n_at_once = 1;      // 1: rows of activations, or queries
  int32_t most_head_dim = 0;  // 2
  int32_t nudge = 0;          // 9: what check_numbers() begins divisions with
};

// Which kernel a name means, and its constants.
struct KernelName {
  const Shader* shader = nullptr;  // null: none
  Constants constants;
};
KernelName parse_kernel(std::string_view name);

Result<Pipeline> create_pipeline(std::span<const uint32_t> code, const Constants& constants);
// The same one for the same name, made once in the process. kFeatureUnsupported where there is
// none.
Result<Pipeline> pipeline_of(const std::string& name);

}  // namespace edge::vulkan
