// What cuda/gemm.cu does (copies beside the threads, matrices from shared memory, products by
// warps), small, and thirteen ways to get it wrong.
#include "backends/cuda/ptx.h"
#include "emulation/tensor_mutants.h"

namespace edge::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kDepth = 32;

__device__ int chunk_of(int row, int half) { return half ^ (row >> 2 & 1); }

template <TensorBug kBug>
__device__ void multiply_step(const int4 (&a)[16][2], const int4 (&b)[8][2], int (&sums)[4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int half = lane / 16, row = lane % 16 + (kBug == TensorBug::kMatricesOfTheNextRow ? 1 : 0);
  uint32_t from_a[4], from_b[2];
  const int chunk = kBug == TensorBug::kSwizzledOnOneSide ? half : chunk_of(row % 16, half);
  load_matrices(from_a, &a[row % 16][chunk]);
  load_matrices(from_b, &b[lane % 8][chunk_of(lane % 8, lane / 8 % 2)]);
  if (kBug == TensorBug::kRowsOfASwapped) {
    const uint32_t second = from_a[1];
    from_a[1] = from_a[2];
    from_a[2] = second;
  }
  if (kBug == TensorBug::kHalvesOfBSwapped) {
    const uint32_t first = from_b[0];
    from_b[0] = from_b[1];
    from_b[1] = first;
  }
  if (kBug == TensorBug::kHalfAWarp && lane >= 16) return;
  int d[4], more[4] = {};
  if (threadIdx.x < 32) {
    if (kBug == TensorBug::kLanesApart && lane % 2 == 1) {
      multiply_add(d, from_a, from_b, 5);
    } else {
      multiply_add(d, from_a, from_b, 5);
    }
  } else {
    multiply_add(d, {from_a[0], from_a[1]}, from_b[0], 5);
    multiply_add(more, {from_a[2], from_a[3]}, from_b[1], 0);
  }
  for (int i = 0; i < 4; ++i) sums[i] += d[i] + more[i] - 5;
}

template <TensorBug kBug>
__global__ void products(const int8_t* a, const int8_t* b, int n_steps, int32_t* sums) {
  EDGE_SHARED(int4, of_a, [16][2]);
  EDGE_SHARED(int4, of_b, [8][2]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  int own[4] = {};
  for (int step = 0; step < n_steps; ++step) {
    // One warp copies a, the other b.
    const int row = lane / 2, half = lane % 2;
    const int shift = kBug == TensorBug::kNotAligned ? 1 : 0;
    const int beyond = kBug == TensorBug::kCopiesBeyond && step == n_steps - 1 ? 16 : 0;
    if (thread < 32) {
      copy_async<16>(&of_a[row][chunk_of(row, half)],
                     a + kDepth * (16 * step + row) + 16 * half + shift + beyond);
    } else if (lane < 16) {
      copy_async<16>(&of_b[row][chunk_of(row, half)], b + kDepth * (8 * step + row) + 16 * half);
    }
    if (kBug == TensorBug::kMissingWait) {
      if (step == n_steps - 1) wait_for_copies();
    } else if (kBug != TensorBug::kNeverWaits) {
      wait_for_copies();
    }
    if (kBug != TensorBug::kMissingBarrier) __syncthreads();
    multiply_step<kBug>(of_a, of_b, own);
    if (kBug != TensorBug::kMissingSecondBarrier) __syncthreads();
  }
  for (int i = 0; i < 4; ++i) {
    const int more_rows = i / 2, more_cols = i % 2;
    const bool is_swapped = kBug == TensorBug::kSumsTransposed;
    const int row = lane / 4 + 8 * (is_swapped ? more_cols : more_rows);
    const int col = lane % 4 * 2 + (is_swapped ? more_rows : more_cols);
    sums[(thread / 32 * 16 + row) * 8 + col] = own[i];
  }
}

}  // namespace

void run_products(TensorBug bug, const int8_t* a, const int8_t* b, int n_steps, int32_t* sums) {
  using Products = void (*)(const int8_t*, const int8_t*, int, int32_t*);
  constexpr Products kKernels[] = {
      products<TensorBug::kNone>,
      products<TensorBug::kRowsOfASwapped>,
      products<TensorBug::kHalvesOfBSwapped>,
      products<TensorBug::kSumsTransposed>,
      products<TensorBug::kSwizzledOnOneSide>,
      products<TensorBug::kMatricesOfTheNextRow>,
      products<TensorBug::kMissingWait>,
      products<TensorBug::kMissingBarrier>,
      products<TensorBug::kMissingSecondBarrier>,
      products<TensorBug::kHalfAWarp>,
      products<TensorBug::kLanesApart>,
      products<TensorBug::kNotAligned>,
      products<TensorBug::kNeverWaits>,
      products<TensorBug::kCopiesBeyond>,
  };
  lockstep::launch({}, {kThreads, 1, 1},
                   [&] { kKernels[static_cast<int>(bug)](a, b, n_steps, sums); });
}

}  // namespace edge::cuda
