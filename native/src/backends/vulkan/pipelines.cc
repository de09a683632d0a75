#include "backends/vulkan/pipelines.h"

#include <array>
#include <charconv>
#include <cstddef>
#include <map>
#include <mutex>

#include "backends/gpu/args.h"
#include "tensor/tensor.h"

namespace edge::vulkan {
namespace {

// In the order that cmake/vulkan.cmake numbers them.
constexpr std::string_view kFormats[] = {
#define EDGE_FORMAT(enumerator, name, group_k, tile_bytes, head_bytes) name,
#include "tensor/formats.inc"
#undef EDGE_FORMAT
};

const Shader* find_shader(std::string_view name) {
  for (const Shader& shader : shaders()) {
    if (shader.name == name) return &shader;
  }
  return nullptr;
}

// "_E4_16" at the end goes.
void take_format(std::string_view& name, Constants& to) {
  for (int32_t i = 0; const std::string_view format : kFormats) {
    if (name.size() > format.size() && name.ends_with(format) &&
        name[name.size() - format.size() - 1] == '_') {
      name.remove_suffix(format.size() + 1);
      to.format = i;
      return;
    }
    ++i;
  }
}

// As attention_plan.cc knows the kernels.
int32_t head_dim_for(int32_t n_queries) {
  return n_queries == 8 ? 128 : n_queries == 4 ? 256 : gpu::kMostHeadDim;
}

// Of every pipeline: the address of its arguments.
Result<VkPipelineLayout> layout() {
  static VkPipelineLayout one = nullptr;
  if (one != nullptr) return one;
  VkPushConstantRange range = {};
  range.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT;
  range.size = sizeof(uint64_t);
  VkPipelineLayoutCreateInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
  info.pushConstantRangeCount = 1;
  info.pPushConstantRanges = &range;
  EDGE_RETURN_IF_ERROR(
      status_of(driver().call.vkCreatePipelineLayout(driver().device, &info, nullptr, &one),
                "the layout of kernels"));
  return one;
}

std::mutex mutex;  // of layout() and of what pipeline_of() made

Result<Pipeline> create(std::span<const uint32_t> code, const Constants& constants) {
  const Functions& call = driver().call;
  Pipeline made;
  EDGE_ASSIGN_OR_RETURN(made.layout, layout());
  VkShaderModuleCreateInfo module = {};
  module.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
  module.codeSize = code.size_bytes();
  module.pCode = code.data();
  const std::array<VkSpecializationMapEntry, 4> entries = {{
      {0, offsetof(Constants, format), sizeof(int32_t)},
      {1, offsetof(Constants, n_at_once), sizeof(int32_t)},
      {2, offsetof(Constants, most_head_dim), sizeof(int32_t)},
      {9, offsetof(Constants, nudge), sizeof(int32_t)},
  }};
  VkSpecializationInfo special = {};
  special.mapEntryCount = static_cast<uint32_t>(entries.size());
  special.pMapEntries = entries.data();
  special.dataSize = sizeof constants;
  special.pData = &constants;
  VkComputePipelineCreateInfo info = {};
  info.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
  info.layout = made.layout;
  info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
  info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  info.stage.pName = "main";
  info.stage.pSpecializationInfo = &special;
  EDGE_RETURN_IF_ERROR(
      status_of(call.vkCreateShaderModule(driver().device, &module, nullptr, &info.stage.module),
                "a kernel"));
  const VkResult result =
      call.vkCreateComputePipelines(driver().device, nullptr, 1, &info, nullptr, &made.pipeline);
  call.vkDestroyShaderModule(driver().device, info.stage.module, nullptr);
  EDGE_RETURN_IF_ERROR(status_of(result, "a kernel"));
  return made;
}

}  // namespace

KernelName parse_kernel(std::string_view name) {
  KernelName parsed;
  take_format(name, parsed.constants);
  parsed.shader = find_shader(name);
  const size_t last = name.rfind('_');
  if (parsed.shader != nullptr || last == std::string_view::npos) return parsed;
  const char* end = name.data() + name.size();
  const auto number = std::from_chars(name.data() + last + 1, end, parsed.constants.n_at_once);
  if (number.ec != std::errc() || number.ptr != end) return parsed;
  parsed.constants.most_head_dim = head_dim_for(parsed.constants.n_at_once);
  parsed.shader = find_shader(name.substr(0, last));
  return parsed;
}

Result<Pipeline> create_pipeline(std::span<const uint32_t> code, const Constants& constants) {
  const std::lock_guard lock(mutex);
  return create(code, constants);
}

Result<Pipeline> pipeline_of(const std::string& name) {
  static std::map<std::string, Pipeline, std::less<>>& made =
      *new std::map<std::string, Pipeline, std::less<>>;
  const std::lock_guard lock(mutex);
  if (const auto found = made.find(name); found != made.end()) return found->second;
  const KernelName kernel = parse_kernel(name);
  if (kernel.shader == nullptr) {
    return {Code::kFeatureUnsupported, "Vulkan: no kernel " + name};
  }
  const auto code = driver().rounds_fma_once ? kernel.shader->fused : kernel.shader->by_f64;
  auto pipeline = create(code, kernel.constants);
  if (!pipeline.is_ok()) return pipeline.status().with_context(name);
  made[name] = pipeline.value();
  return pipeline;
}

}  // namespace edge::vulkan
