// Where a row begins: its embedding, its learned position, and the angles its heads turn by.
#include "backends/cuda/lane.h"
#include "backends/cuda/launch.h"
#include "backends/cuda/weight_tiles.h"

namespace edge::cuda {
namespace {

constexpr int kThreads = 256;

struct PlainF32 {};

// Of a matrix in tiles: quant/decode.h.
template <class F>
__device__ float element(const Matrix& w, int64_t row, int64_t col) {
  const uint8_t* strip = w.strip(row / kTileRows);
  const int lane = static_cast<int>(row % kTileRows);
  const float d_row = reinterpret_cast<const float*>(strip)[lane];
  return d_row * row_of_tile<F>(w, strip, col / kTileK, lane).value(static_cast<int>(col % kTileK));
}

template <class F, bool kIsPosition>
__global__ void embed_kernel(Rows rows, Matrix w, float scale, FloatMatrix x) {
  const int64_t col = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (col >= x.n_cols) return;
  const Row& row = rows.rows[blockIdx.y];
  float* to = x.data + blockIdx.y * x.stride + col;
  const int64_t from = kIsPosition ? row.position : row.token;
  float value;
  if constexpr (std::is_same_v<F, PlainF32>) {
    value = reinterpret_cast<const float*>(w.strips)[from * x.n_cols + col];
  } else {
    value = element<F>(w, from, col);
  }
  if (kIsPosition) {
    *to = *to + value;
  } else {
    *to = scale == 1 ? value : value * scale;
  }
}

__global__ void rope_kernel(Rows rows, const float* inv_freq, int half, float factor, float* cos,
                            float* sin) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i >= half) return;
  const CosSin value = cos_sin(static_cast<float>(rows.rows[blockIdx.y].position) * inv_freq[i]);
  cos[blockIdx.y * static_cast<unsigned>(half) + i] = value.cos * factor;
  sin[blockIdx.y * static_cast<unsigned>(half) + i] = value.sin * factor;
}

dim3 grid_of(int64_t n_cols, int n_rows) {
  return dim3(static_cast<unsigned>((n_cols + kThreads - 1) / kThreads),
              static_cast<unsigned>(n_rows));
}

template <class F, bool kIsPosition>
void launch_embed(const Rows& rows, const Tensor& table, float scale, const FloatMatrix& x,
                  cudaStream_t s) {
  const auto kernel = embed_kernel<F, kIsPosition>;
  EDGE_LAUNCH(kernel, grid_of(x.n_cols, rows.n_rows), dim3(kThreads), s)
  (rows, matrix_of(table), scale, x);
}

}  // namespace

bool embed(const Rows& rows, const Tensor& table, float scale, const FloatMatrix& x,
           cudaStream_t s) {
  return with_format(table.format, [&](auto format) {
    launch_embed<decltype(format), false>(rows, table, scale, x, s);
  });
}

bool add_positions(const Rows& rows, const Tensor& positions, const FloatMatrix& x,
                   cudaStream_t s) {
  if (positions.format == Format::kF32) {
    launch_embed<PlainF32, true>(rows, positions, 1, x, s);
    return true;
  }
  return with_format(positions.format, [&](auto format) {
    launch_embed<decltype(format), true>(rows, positions, 1, x, s);
  });
}

void rope_table(const Rows& rows, const float* inv_freq, int half, float factor, float* cos,
                float* sin, cudaStream_t s) {
  EDGE_LAUNCH(rope_kernel, grid_of(half, rows.n_rows), dim3(kThreads), s)
  (rows, inv_freq, half, factor, cos, sin);
}

}  // namespace edge::cuda
