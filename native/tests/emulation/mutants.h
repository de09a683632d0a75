// A kernel with a planted bug: mutants.cu.
#pragma once

namespace edge::cuda {

enum class Bug {
  kNone,
  kMissingFirstBarrier,
  kMissingSecondBarrier,
  kDivergentBarrier,
  kBarrierOfOneWarp,
  kEndsBeforeBarrier,
  kWarpOpOfHalf,
  kDivergentWarpOp,
  kReadsBeyondRow,
  kWritesBeyondShared,
  kWritesBeyondRow,
  kStaleTail,
  kRaceInGroup,
  kRaceOfGroups,
};

// sums[r] = sum of x[r], [n_rows][n_cols].
void run_row_sums(Bug bug, const float* x, int n_rows, int n_cols, float* sums);

}  // namespace edge::cuda
