#include "speculation/echoes.h"

#include <algorithm>

namespace edge {

int Echoes::hear(std::span<const int32_t> tokens, size_t n_new, int streak) {
  const size_t first = tokens.size() - std::min(n_new, tokens.size());
  for (size_t end = std::max(first + 1, kTokens); end <= tokens.size(); ++end) {
    uint64_t hash = 0;
    for (const int32_t token : tokens.subspan(end - kTokens, kTokens)) {
      hash = (hash ^ static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15ULL;
      hash ^= hash >> 29;
    }
    uint16_t& mark = marks_[hash % kSlots];
    const auto seen = static_cast<uint16_t>(hash >> 48 | 1);
    streak = mark == seen ? streak + 1 : 0;
    mark = seen;
  }
  return streak;
}

}  // namespace edge
