// The likeliest tokens of rows of logits, chosen on the device: Backend::top().
#pragma once

#include "backends/gpu/launcher.h"

namespace edge::gpu {

// logits, out: what alloc() gave.
void top_tokens(Launcher& launcher, const float* logits, int64_t n, int64_t stride, int n_rows,
                TopTokens* out);

}  // namespace edge::gpu
