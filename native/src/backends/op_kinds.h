// Which variant of an operation a model uses; words of the model spec, chosen per layer and never
// looked at inside a loop over elements.
#pragma once

#include "base/plain_types.h"

namespace edge {

// x / rms(x) * weight, or (x - mean(x)) / deviation(x) * weight + bias.
enum class NormKind : uint8_t { kRms, kLayer };

// x / (1 + exp(-x)), x / 2 * (1 + erf(x / sqrt(2))), its approximation by tanh, max(x, 0).
enum class FfnAct : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };

}  // namespace edge
