#include "speculation/chosen_drafters.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <string_view>

namespace edge {

Result<uint32_t> chosen_drafters() {
  // By DrafterKind.
  static constexpr std::array<std::string_view, 3> kNames = {"suffix", "store", "recycling"};
  const char* const set = std::getenv("EDGELLM_DRAFTERS");
  if (set == nullptr || *set == '\0') return ~uint32_t{0};
  uint32_t chosen = ~uint32_t{0} << kNames.size();
  for (std::string_view rest = set; !rest.empty();) {
    const std::string_view name = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(name.size() + 1, rest.size()));
    const auto known = std::find(kNames.begin(), kNames.end(), name);
    if (known == kNames.end()) {
      return Status(Code::kInvalidArgument, "EDGELLM_DRAFTERS=" + std::string(set) + ": '" +
                                                std::string(name) +
                                                "' is not one of suffix, store, recycling");
    }
    chosen |= uint32_t{1} << (known - kNames.begin());
  }
  return chosen;
}

}  // namespace edge
