// One kernel that does what the real ones do (shared memory that is used again, barriers, warp
// operations, the end of a row), and thirteen ways to get it wrong.
#include "backends/cuda/dialect.h"
#include "emulation/mutants.h"

namespace edge::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kChunk = 128;

template <Bug kBug>
__global__ void row_sums(const float* x, int n_rows, int n_cols, float* sums) {
  EDGE_SHARED(float, chunk, [kChunk]);
  EDGE_SHARED(float, parts, [kThreads / 32]);
  const int thread = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(blockIdx.x);
  if (kBug == Bug::kEndsBeforeBarrier && thread == kThreads - 1) return;
  float sum = 0;
  for (int begin = 0; begin < n_cols; begin += kChunk) {
    for (int i = thread; i < kChunk; i += kThreads) {
      const int col = begin + i;
      if (kBug == Bug::kStaleTail && col >= n_cols) break;
      const bool is_in = kBug == Bug::kReadsBeyondRow ? col <= n_cols : col < n_cols;
      const int at = kBug == Bug::kWritesBeyondShared && i == kChunk - 1 ? kChunk : i;
      chunk[at] = is_in ? x[row * n_cols + col] : 0.0f;
    }
    if (kBug == Bug::kDivergentBarrier && thread < 32) {
      __syncthreads();
    } else if (kBug == Bug::kBarrierOfOneWarp) {
      if (thread < 32) __syncthreads();
    } else if (kBug != Bug::kMissingFirstBarrier) {
      __syncthreads();
    }
    // What another thread has written.
    for (int i = thread; i < kChunk; i += kThreads) sum += chunk[kChunk - 1 - i];
    if (kBug != Bug::kMissingSecondBarrier) __syncthreads();
  }
  if (kBug == Bug::kWarpOpOfHalf && (thread & 16) != 0) return;
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    if (kBug == Bug::kDivergentWarpOp && (thread & 1) != 0) {
      sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    } else {
      sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    }
  }
  if (kBug == Bug::kRaceInGroup) {
    parts[0] = sum;  // both warps'
    __syncthreads();
    if (thread == 0) sums[row] = 2 * parts[0];
    return;
  }
  if (thread % 32 == 0) parts[thread / 32] = sum;
  __syncthreads();
  if (thread != 0) return;
  const float total = parts[0] + parts[1];
  if (kBug == Bug::kRaceOfGroups) {
    sums[row] = row == 0 ? total : total + 0 * sums[row - 1];  // which may not be there yet
  } else if (kBug == Bug::kWritesBeyondRow) {
    sums[row == n_rows - 1 ? n_rows : row] = total;
  } else {
    sums[row] = total;
  }
}

}  // namespace

void run_row_sums(Bug bug, const float* x, int n_rows, int n_cols, float* sums) {
  using RowSums = void (*)(const float*, int, int, float*);
  constexpr RowSums kKernels[] = {
      row_sums<Bug::kNone>,
      row_sums<Bug::kMissingFirstBarrier>,
      row_sums<Bug::kMissingSecondBarrier>,
      row_sums<Bug::kDivergentBarrier>,
      row_sums<Bug::kBarrierOfOneWarp>,
      row_sums<Bug::kEndsBeforeBarrier>,
      row_sums<Bug::kWarpOpOfHalf>,
      row_sums<Bug::kDivergentWarpOp>,
      row_sums<Bug::kReadsBeyondRow>,
      row_sums<Bug::kWritesBeyondShared>,
      row_sums<Bug::kWritesBeyondRow>,
      row_sums<Bug::kStaleTail>,
      row_sums<Bug::kRaceInGroup>,
      row_sums<Bug::kRaceOfGroups>,
  };
  lockstep::launch({static_cast<unsigned>(n_rows), 1, 1}, {kThreads, 1, 1},
                   [&] { kKernels[static_cast<int>(bug)](x, n_rows, n_cols, sums); });
}

}  // namespace edge::cuda
