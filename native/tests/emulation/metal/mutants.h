// The kernel of mutants.metal: *sum = the sum of n bytes.
#pragma once

#include "backends/gpu/args.h"

namespace edge::metal {

struct SumArgs {
  EDGE_GLOBAL const uint8_t* bytes;
  EDGE_GLOBAL int32_t* sum;
  int32_t n;
  int32_t has_half_barrier;
};

}  // namespace edge::metal
