#include "runtime/top_ids.h"

#include <algorithm>
#include <cstddef>

#include "kernels/elementwise.h"
#include "kernels/kernels.h"

namespace edge {
namespace {

// Of the logits that are looked at one by one where the largest of them may be wanted.
constexpr size_t kBlock = 128;

}  // namespace

int top_ids(std::span<const float> logits, std::span<int32_t> out) {
  if (out.empty()) return 0;
  const ElementwiseKernels& kernels = *active_kernels().elementwise;
  size_t n = 0;
  const auto logit = [&](int32_t id) { return logits[static_cast<size_t>(id)]; };
  const auto offer = [&](size_t id) {
    const float x = logits[id];
    if (n == out.size() && !(x > logit(out[n - 1]))) return;
    n = std::min(n + 1, out.size());
    size_t at = n - 1;
    for (; at > 0 && x > logit(out[at - 1]); --at) out[at] = out[at - 1];
    out[at] = static_cast<int32_t>(id);
  };
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, logits.size());
    if (n == out.size()) {
      const float largest =
          kernels.max_row(logits.data() + begin, static_cast<int64_t>(end - begin));
      if (!(largest > logit(out[n - 1]))) continue;
    }
    for (size_t id = begin; id < end; ++id) offer(id);
  }
  return static_cast<int>(n);
}

}  // namespace edge
