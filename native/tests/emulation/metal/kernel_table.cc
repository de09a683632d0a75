#include "kernel_table.h"

#include <cstdio>
#include <cstdlib>
#include <map>

#include "../lockstep.h"
#include "base/half.h"

namespace metal_on_cpu {
namespace {

// Made by whichever source registers first.
std::map<std::string_view, Kernel>& table() {
  static std::map<std::string_view, Kernel> kernels;
  return kernels;
}

}  // namespace

const Kernel* find_kernel(std::string_view name) {
  const auto found = table().find(name);
  return found == table().end() ? nullptr : &found->second;
}

void Registered::add(const char* name, Kernel kernel) { table()[name] = std::move(kernel); }

void barrier(bool is_whole, const char* site) {
  if (!is_whole) {
    std::fprintf(stderr, "metal_on_cpu: a barrier not for all memory at %s\n", site);
    std::abort();
  }
  lockstep::sync_group(site);
}

uint16_t half_bits(float value) { return edge::float_to_half(value); }
float float_of_half(uint16_t bits) { return edge::half_to_float(bits); }

}  // namespace metal_on_cpu
