// That a backend makes the bits of the scalar CPU, for a list of shapes small enough for one that
// is emulated.
#pragma once

#include <functional>
#include <memory>

#include "backends/backend.h"

namespace edge::test {

using MakeBackend = std::function<std::unique_ptr<Backend>()>;

void check_all_shapes(const MakeBackend& make);
// Products with enough rows for tensor cores, in every shape of their kernels' groups, with tiles
// that fill stages of four and a part of one, and pass a head of eight.
void check_products(const MakeBackend& make);
// The rows of a step, one by one or in any company, and a step after another one.
void check_rows_alone(const MakeBackend& make);
// The likeliest tokens, where the backend chooses them.
void check_top(const MakeBackend& make);
// kNumeric where an activation is not finite, and the next step is right.
void check_not_finite(const MakeBackend& make);

}  // namespace edge::test
