#include "base/temporary_name.h"

#include <algorithm>
#include <atomic>

#include "base/os.h"

namespace edge {

std::string temporary_name(const std::string& path) {
  static std::atomic<uint64_t> serial{0};
  return path + "." + std::to_string(process_id()) + "." + std::to_string(serial.fetch_add(1)) +
         "." + std::to_string(monotonic_ns()) + ".tmp";
}

bool is_temporary_of(std::string_view name, std::string_view base) {
  if (!name.starts_with(base) || !name.ends_with(".tmp")) return false;
  name.remove_prefix(base.size());
  if (name.size() < sizeof(".tmp")) return false;
  name.remove_suffix(sizeof(".tmp") - 1);
  return name.front() == '.' && std::ranges::count(name, '.') == 3 &&
         name.find_first_not_of(".0123456789") == std::string_view::npos;
}

}  // namespace edge
