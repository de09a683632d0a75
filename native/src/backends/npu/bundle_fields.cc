#include "backends/npu/bundle_fields.h"

#include <algorithm>

namespace edge::npu {
namespace {

constexpr size_t kMostText = 256;
constexpr size_t kMostName = 128;  // of a file

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

}  // namespace

bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= kMostName && is_plain(name.front()) &&
         std::ranges::all_of(name, [](char c) { return is_plain(c) || c == '.' || c == '-'; });
}

Status wrong_field(std::string_view where, std::string_view key) {
  return {Code::kJsonType, std::string(where) + ": '" + std::string(key) +
                               "' is of another type or outside its range"};
}

Result<int> get_size(const Json& object, std::string_view key, std::string_view where,
                     int64_t most) {
  EDGE_ASSIGN_OR_RETURN(const int64_t value, object.get_int(key, where));
  if (value < 0 || value > most) return wrong_field(where, key);
  return static_cast<int>(value);
}

Result<std::string> get_text(const Json& object, std::string_view key, std::string_view where) {
  EDGE_ASSIGN_OR_RETURN(std::string text, object.get_string(key, where));
  if (text.size() > kMostText) return wrong_field(where, key);
  return text;
}

Result<std::vector<std::string>> get_texts(const Json& object, std::string_view key,
                                           std::string_view where) {
  EDGE_ASSIGN_OR_RETURN(const Json* items, object.get_array(key, where));
  std::vector<std::string> texts;
  for (const Json& item : items->items()) {
    if (item.kind() != Json::Kind::kString || item.as_string().size() > kMostText) {
      return wrong_field(where, key);
    }
    texts.push_back(item.as_string());
  }
  return texts;
}

Result<std::string> get_path(const Json& object, std::string_view key, std::string_view where) {
  EDGE_ASSIGN_OR_RETURN(std::string path, get_text(object, key, where));
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    if (!is_plain_name(std::string_view(path).substr(begin, end - begin))) {
      return wrong_field(where, key);
    }
    begin = end + 1;
  }
  return path;
}

}  // namespace edge::npu
