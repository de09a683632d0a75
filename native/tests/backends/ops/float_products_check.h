// The products that have not the CPU's bits: those of float matrices, where they are asked for.
#pragma once

#include <span>

#include "backend_ops_check.h"

namespace edge::test {

// Of a step, as the largest of its outputs.
constexpr float kFloatTolerance = 2e-2f;

constexpr Format kIntegerFormats[] = {Format::kE2_16, Format::kE3_32, Format::kE4_16,
                                      Format::kE4_32, Format::kE6_16, Format::kE8_32,
                                      Format::kK4_32, Format::kL4_32, Format::kL8_32};

// Formats through float matrices are within the tolerance; and it is they that ran.
void check_float_products(const MakeBackend& make, std::span<const Format> formats);

}  // namespace edge::test
