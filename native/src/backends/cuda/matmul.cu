// Products of weights in tiles with rows of activations.
//
// The CPU's sum of a row is f = fma(x, d, f) over its tiles in order, x being exact or rounded
// once. Here a block takes a strip: each of its threads makes the x of one row of one tile for up
// to eight rows of activations, and then one thread for each row and each row of activations runs
// the chain. So a row has the CPU's bits whatever else is in the call, and what takes the time,
// reading and dot products, is parallel over the whole strip. A tile's words of 16 rows are 64
// bytes that 16 threads read side by side.
#include "backends/cuda/launch.h"
#include "backends/cuda/weight_tiles.h"

namespace edge::cuda {
namespace {

constexpr int kPanel = 16;
constexpr int kSlots = 16;  // tiles at once
constexpr int kThreads = kTileRows * kSlots;
constexpr int kChunkTiles = 32;  // whose sums are kept

// Blocks of activation rows [row0, row0 + K) in their panel.
struct PanelPart {
  const int8_t* q;
  const float* d;
  const int32_t* bias;
  int panel_rows;
  int n;  // rows, at most K

  __device__ PanelPart(const Panels& all, int row0, int most) {
    const int panel = row0 / kPanel;
    const int left = all.n_rows - panel * kPanel;
    panel_rows = left < kPanel ? left : kPanel;
    n = all.n_rows - row0 < most ? all.n_rows - row0 : most;
    const int64_t at = panel * kPanel * all.n_blocks + row0 % kPanel;
    q = all.q + kTileK * at;
    d = all.d + at;
    bias = all.bias + 2 * at;
  }
};

template <class F, int K>
__global__ void __launch_bounds__(kThreads)
    matmul_a8_kernel(Matrix w, Panels act, float* y, int64_t stride) {
  EDGE_SHARED(float, x, [kChunkTiles][K][kTileRows]);
  const int row = static_cast<int>(threadIdx.x) % kTileRows;
  const int slot = static_cast<int>(threadIdx.x) / kTileRows;
  const int row0 = static_cast<int>(blockIdx.y) * K;
  const uint8_t* strip = w.strip(blockIdx.x);
  const PanelPart part(act, row0, K);
  const bool is_chain = slot < part.n;  // of activation row `slot`
  float f = 0;
  for (int64_t tile0 = 0; tile0 < w.n_tiles; tile0 += kChunkTiles) {
    const int n =
        w.n_tiles - tile0 < kChunkTiles ? static_cast<int>(w.n_tiles - tile0) : kChunkTiles;
    for (int i = slot; i < n; i += kSlots) {
      const auto weights = row_of_tile<F>(w, strip, tile0 + i, row);
      const int64_t block = (tile0 + i) * part.panel_rows;
      EDGE_UNROLL
      for (int k = 0; k < K; ++k) {
        if (k >= part.n) break;
        int a[kTileK / 4];
        memcpy(a, __builtin_assume_aligned(part.q + kTileK * (block + k), 16), sizeof a);
        const int32_t* bias = part.bias + 2 * (block + k);  // -64 times the sums
        x[i][k][row] = weights.sum(a, {{-(bias[0] >> 6), -(bias[1] >> 6)}});
      }
    }
    __syncthreads();
    for (int i = 0; is_chain && i < n; ++i) {
      f = fma_exact(x[i][slot][row], part.d[(tile0 + i) * part.panel_rows + slot], f);
    }
    __syncthreads();
  }
  if (!is_chain) return;
  const float d_row = reinterpret_cast<const float*>(strip)[row];
  y[(row0 + slot) * stride + int64_t{kTileRows} * blockIdx.x + row] = f * d_row;
}

constexpr int kChains = 4;  // of columns k mod 4

template <class F>
__global__ void __launch_bounds__(kTileRows* kChains)
    matmul_f32_kernel(Matrix w, const float* act, int64_t act_stride, float* y, int64_t stride) {
  EDGE_SHARED(float, sums, [kChains][kTileRows]);
  const int row = static_cast<int>(threadIdx.x) % kTileRows;
  const int chain = static_cast<int>(threadIdx.x) / kTileRows;
  const uint8_t* strip = w.strip(blockIdx.x);
  const float* a = act + blockIdx.y * act_stride;
  float sum = 0;
  for (int64_t tile = 0; tile < w.n_tiles; ++tile) {
    const auto weights = row_of_tile<F>(w, strip, tile, row);
    for (int k = chain; k < kTileK; k += kChains) {
      sum = fma_exact(weights.value(k), a[kTileK * tile + k], sum);
    }
  }
  sums[chain][row] = sum;
  __syncthreads();
  if (chain != 0) return;
  const float total = (sums[0][row] + sums[1][row]) + (sums[2][row] + sums[3][row]);
  const float d_row = reinterpret_cast<const float*>(strip)[row];
  y[blockIdx.y * stride + int64_t{kTileRows} * blockIdx.x + row] = total * d_row;
}

__global__ void add_pairs_kernel(const float* parts, int64_t n, float* y, int64_t stride) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float* value = parts + 2 * blockIdx.y * n;
  y[blockIdx.y * stride + i] = value[i] + value[n + i];
}

template <class F, int K>
void launch_a8(const Matrix& w, const Panels& act, float* y, int64_t stride, cudaStream_t s) {
  const auto kernel = matmul_a8_kernel<F, K>;
  const dim3 grid(static_cast<unsigned>(w.n_strips),
                  static_cast<unsigned>((act.n_rows + K - 1) / K));
  EDGE_LAUNCH(kernel, grid, dim3(kThreads), s)(w, act, y, stride);
}

}  // namespace

bool matmul_a8(const Tensor& weight, const Panels& act, float* y, int64_t stride, cudaStream_t s) {
  const Matrix w = matrix_of(weight);
  return with_integer_format(weight.format, [&](auto format) {
    using F = decltype(format);
    if (act.n_rows == 1) return launch_a8<F, 1>(w, act, y, stride, s);
    if (act.n_rows == 2) return launch_a8<F, 2>(w, act, y, stride, s);
    if (act.n_rows <= 4) return launch_a8<F, 4>(w, act, y, stride, s);
    return launch_a8<F, 8>(w, act, y, stride, s);
  });
}

bool matmul_f32(const Tensor& weight, const float* act, int64_t act_stride, int n_rows, float* y,
                int64_t stride, cudaStream_t s) {
  const Matrix w = matrix_of(weight);
  const dim3 grid(static_cast<unsigned>(w.n_strips), static_cast<unsigned>(n_rows));
  return with_format(weight.format, [&](auto format) {
    const auto kernel = matmul_f32_kernel<decltype(format)>;
    EDGE_LAUNCH(kernel, grid, dim3(kTileRows * kChains), s)(w, act, act_stride, y, stride);
  });
}

void add_pairs(const float* parts, int n_rows, int64_t n, float* y, int64_t stride,
               cudaStream_t s) {
  constexpr int kBlock = 256;
  const dim3 grid(static_cast<unsigned>((n + kBlock - 1) / kBlock), static_cast<unsigned>(n_rows));
  EDGE_LAUNCH(add_pairs_kernel, grid, dim3(kBlock), s)(parts, n, y, stride);
}

}  // namespace edge::cuda
