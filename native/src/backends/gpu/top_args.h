// What the kernels of cuda/top.cu are given. Apart from args.h, because not every device has f64.
#pragma once

#include "backends/gpu/args.h"
#include "backends/top_tokens.h"

namespace edge::gpu {

constexpr int kTopSlice = 1024;
constexpr int kTopThreads = 256;
constexpr int kTermsChunk = 2048;  // summed between two barriers

// A key orders as logits do, and those of equal logits by descending id; 0 stands behind all.
// The best kMostTopTokens keys of every slice of a row, best first.
struct TopSlicesArgs {
  const float* logits;   // [n_rows][stride], or null, and
  const uint64_t* from;  // [n_rows][stride]
  uint64_t* to;          // [n_rows][slices][kMostTopTokens]
  int64_t stride;
  int32_t n;  // of a row
};

// What is made of the best ones: terms[r][i] = exp(logit - the largest), and their sum.
struct TopTokensArgs {
  const float* logits;   // [n_rows][stride]
  const uint64_t* best;  // [n_rows][kMostTopTokens]
  double* terms;         // [n_rows][n]
  TopTokens* out;        // [n_rows]
  int64_t stride;
  int32_t n;
};

}  // namespace edge::gpu
