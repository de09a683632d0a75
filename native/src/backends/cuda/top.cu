// The likeliest tokens of a row of logits, and the mass of all: sampler.cc's order and
// ElementwiseKernels::exp_sum()'s sum, which needs f64. Where memory is shared, as with Metal,
// logits need not be copied to be sampled from.
#include "backends/cuda/dialect.h"
#include "backends/gpu/lane.inl.h"
#include "backends/gpu/top_args.h"
#include "base/exact_math.h"

namespace EDGE_DEVICE {

constexpr int kMassLanes = 16;

EDGE_FN uint64_t key_of(float logit, int id) {
  const uint32_t bits = scalar::lane_bits(logit == 0 ? 0.0f : logit);  // -0 is no less than 0
  const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}
EDGE_FN int id_of(uint64_t key) {
  return static_cast<int>(0xffffffffu - static_cast<uint32_t>(key & 0xffffffffu));
}

}  // namespace EDGE_DEVICE

using namespace EDGE_DEVICE;

// A bitonic sort of a slice.
EDGE_KERNEL(top_slices, TopSlicesArgs, kTopThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(uint64_t, keys, [kTopSlice]);
  const int first = at.x * kTopSlice;
  for (int i = at.index; i < kTopSlice; i += kTopThreads) {
    const int from = first + i;
    const int64_t place = at.y * args.stride + from;
    keys[i] = from >= args.n           ? 0
              : args.logits != nullptr ? key_of(args.logits[place], from)
                                       : args.from[place];
  }
  EDGE_SYNC();
  for (int size = 2; size <= kTopSlice; size *= 2) {
    for (int apart = size / 2; apart > 0; apart /= 2) {
      for (int i = at.index; i < kTopSlice / 2; i += kTopThreads) {
        const int low = i / apart * 2 * apart + i % apart;
        const bool falls = (low & size) == 0;  // this part of the row
        const uint64_t a = keys[low], b = keys[low + apart];
        if ((a < b) == falls) {
          keys[low] = b;
          keys[low + apart] = a;
        }
      }
      EDGE_SYNC();
    }
  }
  const int64_t n_slices = (args.n + kTopSlice - 1) / kTopSlice;
  uint64_t* to = args.to + (at.y * n_slices + at.x) * kMostTopTokens;
  for (int i = at.index; i < kMostTopTokens; i += kTopThreads) to[i] = keys[i];
}

EDGE_KERNEL(top_terms, TopTokensArgs, kElementThreads) {
  const At at = EDGE_AT;
  const int64_t i = static_cast<int64_t>(at.x) * kElementThreads + at.index;
  if (i >= args.n) return;
  const float* logits = args.logits + at.y * args.stride;
  const double largest = static_cast<double>(logits[id_of(args.best[at.y * kMostTopTokens])]);
  args.terms[static_cast<int64_t>(at.y) * args.n + i] =
      exp_nonpositive(static_cast<double>(logits[i]) - largest);
}

EDGE_KERNEL(top_tokens, TopTokensArgs, kTopThreads) {
  const At at = EDGE_AT;
  EDGE_SHARED(double, chunk, [kTermsChunk]);
  EDGE_SHARED(double, sums, [kMassLanes]);
  TopTokens& out = args.out[at.x];
  const int n_top = smaller(args.n, kMostTopTokens);
  if (at.index < n_top) {
    const int id = id_of(args.best[static_cast<int64_t>(at.x) * kMostTopTokens + at.index]);
    out.ids[at.index] = id;
    out.logits[at.index] = args.logits[at.x * args.stride + id];
  }
  const double* terms = args.terms + static_cast<int64_t>(at.x) * args.n;
  double sum = 0;
  for (int begin = 0; begin < args.n; begin += kTermsChunk) {
    const int n = smaller(args.n - begin, kTermsChunk);
    for (int i = at.index; i < n; i += kTopThreads) chunk[i] = terms[begin + i];
    EDGE_SYNC();
    if (at.index < kMassLanes) {
      for (int i = at.index; i < n; i += kMassLanes) sum += chunk[i];
    }
    EDGE_SYNC();
  }
  if (at.index < kMassLanes) sums[at.index] = sum;
  EDGE_SYNC();
  if (at.index != 0) return;
  double tree[kMassLanes];
  for (int l = 0; l < kMassLanes; ++l) tree[l] = sums[l];
  for (int width = kMassLanes / 2; width >= 1; width /= 2) {
    for (int l = 0; l < width; ++l) tree[l] += tree[l + width];
  }
  out.mass = tree[0];
  out.n = n_top;
  out.padding = 0;
}

EDGE_EXPORT(top_slices)
EDGE_EXPORT(top_terms)
EDGE_EXPORT(top_tokens)
