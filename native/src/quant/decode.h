// Scalar decode of tiled tensors to f32: embedding lookup, tests, and the f32-activation path.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace edge {

// Decodes rows [row0, row0 + n) of a tiled tensor to f32 [n, n_cols], exactly as the contract says:
// w = d_row * (s * v) where v is the integer weight (U_sel[q] - 64, q - 32, q - 128 or the f16
// value with s = 1): s * v is exact in f32, so there is one rounding. L4_32: s * (q - zero), and
// L8_32: s * (q - 128), exact.
// A scale that is not finite decodes to values that are not.
void decode_rows(const Tensor& tensor, int64_t row0, int64_t n, float* out);

}  // namespace edge
