#include "runtime/kv_compress.h"

#include <algorithm>
#include <numeric>
#include <string>

namespace edge {

Status KvCompression::check(int n_slots) const {
  const auto wrong = [](const std::string& text) { return Status{Code::kInvalidArgument, text}; };
  if (n_sink < 0) return wrong("n_sink is " + std::to_string(n_sink) + "; it must be 0 or more");
  if (n_window < 1 || n_window > 128) {
    return wrong("window is " + std::to_string(n_window) + "; it must be from 1 to 128");
  }
  if (n_pool < 1 || n_pool > 63 || n_pool % 2 == 0) {
    return wrong("pool is " + std::to_string(n_pool) + "; it must be odd and from 1 to 63");
  }
  if (n_keep <= int64_t{n_sink} + n_window) {
    return wrong("n_keep is " + std::to_string(n_keep) + "; it must be above n_sink + window, " +
                 std::to_string(int64_t{n_sink} + n_window));
  }
  if (n_keep > n_slots) {
    return wrong("n_keep is " + std::to_string(n_keep) + ", but there are " +
                 std::to_string(n_slots) + " tokens");
  }
  return Status::ok();
}

std::vector<int32_t> choose_slots(std::span<const float> shares, const KvCompression& compression) {
  const auto n_slots = static_cast<int32_t>(shares.size());
  const int32_t first = compression.n_sink, end = n_slots - compression.n_window;
  const int32_t reach = compression.n_pool / 2;
  std::vector<float> pooled(shares.size());
  for (int32_t slot = first; slot < end; ++slot) {
    // Only over what can be chosen: sinks draw attention whatever they say.
    const auto begin = shares.begin() + std::max(first, slot - reach);
    pooled[static_cast<size_t>(slot)] =
        *std::max_element(begin, shares.begin() + std::min(end, slot + reach + 1));
  }
  std::vector<int32_t> order(static_cast<size_t>(end - first));
  std::iota(order.begin(), order.end(), first);
  const auto is_better = [&](int32_t a, int32_t b) {
    const float x = pooled[static_cast<size_t>(a)], y = pooled[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  const int32_t n_chosen = compression.n_keep - compression.n_sink - compression.n_window;
  std::nth_element(order.begin(), order.begin() + n_chosen, order.end(), is_better);
  std::vector<int32_t> kept(static_cast<size_t>(first));
  std::iota(kept.begin(), kept.end(), 0);
  kept.insert(kept.end(), order.begin(), order.begin() + n_chosen);
  std::sort(kept.begin() + first, kept.end());
  for (int32_t slot = end; slot < n_slots; ++slot) kept.push_back(slot);
  return kept;
}

}  // namespace edge
