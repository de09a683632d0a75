// How much of attention fits the registers of this level, and how it multiplies bytes.
#pragma once

#include "kernels/x86_avx512bw/bytes16.h"

namespace edge::x86_avx512bw {

constexpr int kScoreVectors = 2;
constexpr int kValueSums = 16;

#include "kernels/generic/madd_quads.inl.h"

}  // namespace edge::x86_avx512bw
