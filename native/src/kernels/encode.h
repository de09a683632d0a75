// Weight encoders: f32 rows -> R16 strips, with a search over scales and LUTs that minimises the
// (importance-weighted) squared error. Same bytes on every ISA and thread count.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "tensor/tensor.h"

namespace edge {

// Encodes row-major `weights` [n_rows, n_cols] into `out`, which must hold exactly
// tensor_bytes(format, n_rows, n_cols). `importance` is null or [n_cols] weights >= 0 of the
// squared error per input column (E[x_j^2]). Threaded over strips on the process-wide pool.
// Non-finite weights are kNumeric, naming row and column.
Status encode_tensor(Format format, const float* weights, int64_t n_rows, int64_t n_cols,
                     const float* importance, std::span<std::byte> out, int n_threads);

// The same with the kernels of one ISA; for tests.
struct EncodeKernels;
Status encode_tensor_with(const EncodeKernels& kernels, Format format, const float* weights,
                          int64_t n_rows, int64_t n_cols, const float* importance,
                          std::span<std::byte> out, int n_threads);

}  // namespace edge
