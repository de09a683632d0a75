#include "runtime/kept_tokens.h"

#include <algorithm>

namespace edge {

int32_t KeptTokens::token_at(size_t head, int slot) const {
  if (heads_.empty()) return slot;
  const std::vector<int32_t>& listed = heads_[heads_.size() == 1 ? 0 : head];
  const auto at = static_cast<size_t>(slot);
  return at < listed.size() ? listed[at] : token_of(slot);
}

void KeptTokens::shift(int n_sink, int n_drop, int n_tokens) {
  std::vector<int32_t> listed;
  for (int slot = 0; slot < n_sink; ++slot) listed.push_back(token_at(0, slot));
  const int n_listed = heads_.empty() ? 0 : static_cast<int>(heads_[0].size());
  for (int slot = n_sink + n_drop; slot < n_listed; ++slot) listed.push_back(token_at(0, slot));
  tail_ = std::max(tail_, token_of(n_sink + n_drop));
  heads_ = {std::move(listed)};
  n_gone_ += n_drop;
  n_shifted_ += n_drop;
  n_fixed_ = n_tokens;
}

void KeptTokens::compress(std::span<const std::vector<int32_t>> kept, int n_window, int n_tokens) {
  const size_t n_listed = kept.front().size() - static_cast<size_t>(n_window);
  std::vector<std::vector<int32_t>> heads(kept.size());
  for (size_t head = 0; head < kept.size(); ++head) {
    for (size_t i = 0; i < n_listed; ++i) heads[head].push_back(token_at(head, kept[head][i]));
  }
  heads_ = std::move(heads);
  n_gone_ = n_tokens - static_cast<int>(kept.front().size());
  tail_ = n_tokens - n_window;
  n_fixed_ = n_tokens;
}

void KeptTokens::rewind(int n_tokens) { n_fixed_ = std::min(n_fixed_, n_tokens); }

std::vector<TokenRange> KeptTokens::ranges(int n_tokens) const {
  std::vector<int32_t> tokens;
  for (const std::vector<int32_t>& head : heads_) {
    tokens.insert(tokens.end(), head.begin(), head.end());
  }
  std::sort(tokens.begin(), tokens.end());
  std::vector<TokenRange> ranges;
  const auto add = [&ranges](int32_t first, int32_t end) {
    if (!ranges.empty() && first <= ranges.back().end) {
      ranges.back().end = std::max(ranges.back().end, end);
    } else if (first < end) {
      ranges.push_back({first, end});
    }
  };
  for (const int32_t token : tokens) add(token, token + 1);
  add(tail_, n_tokens);
  return ranges;
}

}  // namespace edge
