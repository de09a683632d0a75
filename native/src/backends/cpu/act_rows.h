// Activation rows as matmuls read them: written, cut into runs of rows, and gathered row by row.
#pragma once

#include <cstdint>

#include "backends/backend.h"
#include "kernels/elementwise.h"

namespace edge {

// Columns [column0, column0 + n) of row r of `out` from y; n is a multiple of 32. Where f32 is
// needed, y is that row of out.f. False if a value is not finite.
bool write_act(const ElementwiseKernels& ops, const float* y, int64_t n, int r, int64_t column0,
               ActNeeds needs, ActRows& out);

// n_rows rows in the memory of rows [row0, row0 + n_rows) of `all`, as panels of their own: what
// the parts hold is theirs alone, nothing that `all` was filled with.
ActRows act_part(const ActRows& all, int64_t row0, int n_rows);

// Row `to_row` of `to` becomes row `from_row` of `from`, in the forms that `needs` names.
void copy_act_row(const ActRows& from, int from_row, ActNeeds needs, ActRows& to, int to_row);

}  // namespace edge
