// A kernel for tensor cores with a planted bug: tensor_mutants.cu.
#pragma once

#include <cstdint>

namespace edge::cuda {

enum class TensorBug {
  kNone,
  kRowsOfASwapped,
  kHalvesOfBSwapped,
  kSumsTransposed,
  kSwizzledOnOneSide,
  kMatricesOfTheNextRow,
  kMissingWait,
  kMissingBarrier,
  kMissingSecondBarrier,
  kHalfAWarp,
  kLanesApart,
  kNotAligned,
  kNeverWaits,
  kCopiesBeyond,
};

// sums[i] = a b^T for both i, a: [n_steps][16][32], b: [n_steps][8][32], sums: [2][16][8], by two
// kinds of instruction.
void run_products(TensorBug bug, const int8_t* a, const int8_t* b, int n_steps, int32_t* sums);

}  // namespace edge::cuda
