// Names of files that are being written, beside the ones that they will replace.
#pragma once

#include <string>
#include <string_view>

namespace edge {

// PATH.PROCESS.SERIAL.NANOSECONDS.tmp: a name that nobody else chooses.
std::string temporary_name(const std::string& path);
// Whether `name` may be one for a file called `base`.
bool is_temporary_of(std::string_view name, std::string_view base);

}  // namespace edge
