// What acts_to_fp8 of cuda/gemm_fp8.cu is given. Apart from args.h, because only CUDA has it.
#pragma once

#include "backends/gpu/args.h"

namespace edge::gpu {

// Rows of int8 as rows of 8-bit floats, of the same shape, the four scales of kFp8Cols columns
// being one. With halves = 2, rows 2 r and 2 r + 1 are a value and what rounding left of it, before
// and after.
struct Fp8ActsArgs {
  Panels from;
  Panels to;  // without `bias`
  int32_t halves;
};
constexpr int kFp8Cols = 128;

}  // namespace edge::gpu
