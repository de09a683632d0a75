#include "runtime/top_ids.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

namespace edge {
namespace {

constexpr size_t kLanes = 16;
constexpr size_t kBlock = 8 * kLanes;

// Of whole lanes, without a chain from one element to the next.
float largest_of(const float* x) {
  std::array<float, kLanes> top;
  std::copy_n(x, kLanes, top.begin());
  for (size_t i = kLanes; i < kBlock; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      top[lane] = x[i + lane] > top[lane] ? x[i + lane] : top[lane];
    }
  }
  float largest = top[0];
  for (size_t lane = 1; lane < kLanes; ++lane) largest = top[lane] > largest ? top[lane] : largest;
  return largest;
}

}  // namespace

int top_ids(std::span<const float> logits, std::span<int32_t> out) {
  size_t n = 0;
  const auto logit = [&](int32_t id) { return logits[static_cast<size_t>(id)]; };
  const auto offer = [&](size_t id) {
    const float x = logits[id];
    size_t at = n;
    while (at > 0 && x > logit(out[at - 1])) --at;
    if (at == out.size()) return;
    if (n < out.size()) ++n;
    std::copy_backward(out.begin() + static_cast<std::ptrdiff_t>(at),
                       out.begin() + static_cast<std::ptrdiff_t>(n - 1),
                       out.begin() + static_cast<std::ptrdiff_t>(n));
    out[at] = static_cast<int32_t>(id);
  };
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, logits.size());
    const bool is_full = n == out.size() && n > 0;
    if (is_full && end - begin == kBlock &&
        !(largest_of(logits.data() + begin) > logit(out[n - 1]))) {
      continue;
    }
    for (size_t id = begin; id < end; ++id) offer(id);
  }
  return static_cast<int>(n);
}

}  // namespace edge
