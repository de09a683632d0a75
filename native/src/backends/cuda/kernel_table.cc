#include "backends/cuda/kernel_table.h"

#include <map>

namespace edge::cuda {
namespace {

// Made by whichever source registers first, and there until the process ends.
std::map<std::string_view, Kernel>& table() {
  static std::map<std::string_view, Kernel>& kernels = *new std::map<std::string_view, Kernel>;
  return kernels;
}

}  // namespace

const Kernel* find_kernel(std::string_view name) {
  const auto found = table().find(name);
  return found == table().end() ? nullptr : &found->second;
}

void Registered::add(const char* name, Kernel kernel) { table()[name] = kernel; }

}  // namespace edge::cuda
