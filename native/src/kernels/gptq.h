// GPTQ's search of scales, LUTs and codes, for one block of columns of a matrix (Frantar et al.
// 2022, arXiv:2210.17323; the coordinate descent is this project's, docs/COMPRESSION.md). What
// multiplies whole matrices stays with the caller. Same bits on every ISA and thread count.
//
// A group's choice is (scale byte, integer weights): q = d_row * scale of the byte * level.
// Candidates are the scales next to the best real one of either sign, with every LUT; each is
// rated by the loss that the sweep itself has inside the group, sum of (error / U_jj)^2.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "tensor/tensor.h"

namespace edge {

constexpr int64_t kMaxGptqCols = 1024;  // of a block

// What both searches see of a block; row-major, finite. d_row > 0, rows scaled to about 1.
struct GptqBlock {
  Format format = Format::kE4_16;
  int64_t n_rows = 0;
  int64_t n_cols = 0;              // a multiple of the format's group, at most kMaxGptqCols
  const float* d_row = nullptr;    // [n_rows]
  uint8_t* scale_bytes = nullptr;  // [n_rows, n_cols / group]
  int8_t* levels = nullptr;        // [n_rows, n_cols]
};

// Rounds `target` [n_rows, n_cols] column by column, every error moved to the columns of the block
// that are still free by `upper` [n_cols, n_cols] (H^-1 = U^T U, the block's part of U). Writes the
// choices and `moved` [n_rows, n_cols], errors over U_jj: columns after the block then change by
// - moved x U[block, after]. kInvalidArgument: no such search for the format, bad shape.
Status gptq_sweep(const GptqBlock& block, const float* target, const float* upper, float* moved,
                  int n_threads);

// One pass of block coordinate descent: a group is taken out, its target given the errors of all
// other columns is w + e H_og H_gg^-1, and it is searched again on H_gg; what lowers the loss is
// kept. `errors` = weights - quantized, `pulls` = errors of all columns x H[:, block]; `hessian` =
// H[block, block]; uppers and inverses [n_groups, group, group] belong to H_gg. The choices are
// read and written.
struct GptqDescent {
  const float* weights = nullptr;  // [n_rows, n_cols], as errors and pulls
  const float* errors = nullptr;
  const float* pulls = nullptr;
  const float* hessian = nullptr;
  const float* group_uppers = nullptr;
  const float* group_inverses = nullptr;
};
Status gptq_descend(const GptqBlock& block, const GptqDescent& descent, int n_threads);

// The same with the kernels of one ISA; for tests.
struct GptqKernels;
Status gptq_sweep_with(const GptqKernels& kernels, const GptqBlock& block, const float* target,
                       const float* upper, float* moved, int n_threads);
Status gptq_descend_with(const GptqKernels& kernels, const GptqBlock& block,
                         const GptqDescent& descent, int n_threads);

}  // namespace edge
