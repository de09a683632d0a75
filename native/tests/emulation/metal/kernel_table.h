// Emulated kernels by name.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

// A vector type of the Metal Shading Language.
struct uint3 {
  unsigned x, y, z;
};

namespace metal_on_cpu {

using Kernel = std::function<void(const void* args, uint3 group, unsigned thread_number)>;
// Null: there is none of that name.
const Kernel* find_kernel(std::string_view name);

// One in every kernel's source, before main().
struct Registered {
  template <class Args>
  Registered(const char* name, void (*kernel)(const Args&, uint3, unsigned)) {
    add(name, [kernel](const void* args, uint3 group, unsigned thread_number) {
      kernel(*static_cast<const Args*>(args), group, thread_number);
    });
  }
  static void add(const char* name, Kernel kernel);
};

void barrier(bool is_whole, const char* site);

// binary16, rounded to nearest even.
uint16_t half_bits(float value);
float float_of_half(uint16_t bits);

}  // namespace metal_on_cpu
