// The per-ISA part of GPTQ's search: one strip of 16 rows and one block of columns.
// kernels/gptq.h is the driver and says what is computed. Written once
// (kernels/generic/gptq.inl.h); every ISA gives the same bits. A row is a lane: arrays marked
// [k][16] hold column k of all 16 rows.
#pragma once

#include <cstdint>

namespace edge {

struct GptqSweepArgs {
  int n_cols = 0;                 // of the block, a multiple of the format's group
  const float* upper = nullptr;   // [n_cols][n_cols], upper triangular
  const float* d_row = nullptr;   // [16]
  float* rest = nullptr;          // [n_cols][16] in: targets; overwritten
  float* moved = nullptr;         // [n_cols][16] out: errors over the diagonal of `upper`
  int32_t* scale_byte = nullptr;  // [n_groups][16] out
  int32_t* level = nullptr;       // [n_cols][16] out: integer weights
};
using GptqSweepFn = void (*)(const GptqSweepArgs& args);

struct GptqDescendArgs {
  int n_cols = 0;
  const float* hessian = nullptr;         // [n_cols][n_cols]
  const float* group_uppers = nullptr;    // [n_groups][group][group]
  const float* group_inverses = nullptr;  // [n_groups][group][group]
  const float* d_row = nullptr;           // [16]
  const float* weights = nullptr;         // [n_cols][16]
  float* errors = nullptr;                // [n_cols][16] in: weights - quantized; overwritten
  float* pulls = nullptr;                 // [n_cols][16] in: errors of all columns x H; overwritten
  int32_t* scale_byte = nullptr;          // [n_groups][16] in and out
  int32_t* level = nullptr;               // [n_cols][16] in and out
};
using GptqDescendFn = void (*)(const GptqDescendArgs& args);

struct GptqSearch {
  GptqSweepFn sweep;
  GptqDescendFn descend;
};

struct GptqKernels {
  GptqSearch e2_16;
  GptqSearch e3_32;
  GptqSearch e4_16;
  GptqSearch e4_32;
  GptqSearch e6_16;
  GptqSearch e8_32;
};

extern const GptqKernels kGptq_scalar;
extern const GptqKernels kGptq_x86_avx2;
extern const GptqKernels kGptq_x86_avx512bw;
extern const GptqKernels kGptq_arm_neon;

}  // namespace edge
