// How much of attention fits the registers of this level, and how it multiplies bytes.
#pragma once

#include "kernels/x86_sse41/bytes16.h"

namespace edge::x86_sse41 {

constexpr int kScoreVectors = 1;
constexpr int kValueSums = 4;

#include "kernels/generic/madd_quads.inl.h"

}  // namespace edge::x86_sse41
