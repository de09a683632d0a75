// Fields of a bundle's description, checked as they are asked for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "format/json.h"

namespace edge::npu {

constexpr int64_t kMostSize = int64_t{1} << 24;  // of a shape

Status wrong_field(std::string_view where, std::string_view key);

Result<int> get_size(const Json& object, std::string_view key, std::string_view where,
                     int64_t most = kMostSize);
// Of at most 256 bytes.
Result<std::string> get_text(const Json& object, std::string_view key, std::string_view where);
Result<std::vector<std::string>> get_texts(const Json& object, std::string_view key,
                                           std::string_view where);
// A part of a path.
bool is_plain_name(std::string_view name);
// A relative path that stays in the folder.
Result<std::string> get_path(const Json& object, std::string_view key, std::string_view where);

}  // namespace edge::npu
