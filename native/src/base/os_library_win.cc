#include "base/os_library.h"

namespace edge {

// No backend in a library of its own is built for Windows yet.
Result<void*> library_function(const std::string& path, const char*) {
  return {Code::kDeviceUnavailable, path + ": not on Windows"};
}

std::string own_directory() { return ""; }

}  // namespace edge
