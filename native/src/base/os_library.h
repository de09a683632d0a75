// Shared libraries that are opened while the program runs. Part of the OS layer:
// os_library_posix.cc, os_library_win.cc. Paths are UTF-8.
#pragma once

#include <string>

#include "base/status.h"

namespace edge {

// Opens a library for good and gives its function `name`. kDeviceUnavailable with the system's
// words where either is not there.
Result<void*> library_function(const std::string& path, const char* name);

// The directory of the program or library that this code is part of; "" if the system does not say.
std::string own_directory();

}  // namespace edge
