#include "backends/gpu/top.h"

#include <utility>

#include "backends/gpu/top_args.h"

namespace edge::gpu {

void top_tokens(Launcher& launcher, const float* logits, int64_t n, int64_t stride, int n_rows,
                TopTokens* out) {
  TopSlicesArgs slices = {};
  slices.logits = launcher.at(const_cast<float*>(logits));
  slices.stride = stride;
  slices.n = static_cast<int32_t>(n);
  uint64_t* to = nullptr;
  Room room = Room::kQueries, other = Room::kKeys;
  for (int64_t n_slices = 0; n_slices != 1;) {
    n_slices = groups_of(slices.n, kTopSlice);
    to = launcher.take<uint64_t>(room, n_rows * n_slices * kMostTopTokens);
    slices.to = to;
    launcher.launch("top_slices", slices, {n_slices, n_rows}, kTopThreads);
    slices.logits = nullptr;
    slices.from = to;
    slices.n = static_cast<int32_t>(n_slices * kMostTopTokens);
    slices.stride = slices.n;
    std::swap(room, other);
  }
  TopTokensArgs args = {};
  args.logits = launcher.at(const_cast<float*>(logits));
  args.best = to;
  args.terms = launcher.take<double>(Room::kParts, n_rows * n);
  args.out = launcher.at(out);
  args.stride = stride;
  args.n = static_cast<int32_t>(n);
  launcher.launch("top_terms", args, {groups_of(n, kElementThreads), n_rows}, kElementThreads);
  launcher.launch("top_tokens", args, {n_rows}, kTopThreads);
}

}  // namespace edge::gpu
