#include <dlfcn.h>

#include "base/os_library.h"

namespace edge {
namespace {

std::string dl_text() {
  const char* text = ::dlerror();
  return text == nullptr ? "unknown error" : text;
}

}  // namespace

Result<void*> library_function(const std::string& path, const char* name) {
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return {Code::kDeviceUnavailable, dl_text()};
  void* function = ::dlsym(library, name);
  if (function == nullptr) return {Code::kDeviceUnavailable, dl_text()};
  return function;
}

std::string own_directory() {
  Dl_info info;
  if (::dladdr(reinterpret_cast<const void*>(&own_directory), &info) == 0) return "";
  const std::string path = info.dli_fname == nullptr ? "" : info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

}  // namespace edge
