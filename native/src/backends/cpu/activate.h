// The activation function of a feed-forward network, by its word in the model spec.
#pragma once

#include "backends/op_kinds.h"
#include "kernels/elementwise.h"
#include "kernels/kernels.h"
#include "kernels/variants.h"

namespace edge {

// y = f(gate) * up, or f(gate) where up is null, over n elements. y may be gate or up.
inline void activate_row(const KernelTable& kernels, FfnAct act, const float* gate, const float* up,
                         int64_t n, float* y) {
  if (act == FfnAct::kSilu && up != nullptr) return kernels.elementwise->swiglu(gate, up, n, y);
  kernels.variants->activate[static_cast<size_t>(act)](gate, up, n, y);
}

}  // namespace edge
