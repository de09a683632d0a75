// The products of backend "cuda-fp8", which have not the CPU's bits: those of 8-bit floats.
#pragma once

#include "float_products_check.h"

namespace edge::test {

// Shares of the sum of products' magnitudes by which a sum may be wrong: of floats, and of tensor
// cores, which keep fewer bits of the smaller of two numbers.
constexpr double kFloatSums = 2e-5, kTensorCoreSums = 2e-3;

// Products of 17 rows and more are what a plain loop over rounded weights and activations gives;
// those of fewer have the scalar CPU's bits.
void check_fp8_products(const MakeBackend& make, std::span<const Format> formats,
                        double sum_tolerance);
// A weight's scale that is infinite makes its row's outputs not finite, and no others.
void check_fp8_not_finite(const MakeBackend& make);

}  // namespace edge::test
