// The kernels, compiled by glslc: build/.../shader_table.cc, which cmake/vulkan.cmake makes.
#pragma once

#include <cstdint>
#include <span>

namespace edge::vulkan {

struct Shader {
  const char* name;                  // of kernels/NAME.comp
  std::span<const uint32_t> fused;   // for devices whose fma rounds once
  std::span<const uint32_t> by_f64;  // for others, which need f64
};
std::span<const Shader> shaders();

}  // namespace edge::vulkan
