// The products that have not the CPU's bits: those of float matrices, where they are asked for.
#pragma once

#include "backend_ops_check.h"

namespace edge::test {

// Of a step, as the largest of its outputs.
constexpr float kFloatTolerance = 2e-2f;

// Every integer format through float matrices is within the tolerance; and it is they that ran.
void check_float_products(const MakeBackend& make);

}  // namespace edge::test
