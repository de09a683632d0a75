#include "backends/cuda/kernel_table.h"

#include <map>

namespace edge::cuda {
namespace {

// Made by whichever source registers first.
std::map<std::string_view, Launch>& table() {
  static std::map<std::string_view, Launch> launches;
  return launches;
}

}  // namespace

Launch find_kernel(std::string_view name) {
  const auto found = table().find(name);
  return found == table().end() ? nullptr : found->second;
}

Registered::Registered(const char* name, Launch launch) { table()[name] = launch; }

}  // namespace edge::cuda
