// What happens to whole rows: residual, norm, activation function, and quantization to the int8
// blocks that matmuls read. A warp makes a block of 32 columns.
#include "backends/cuda/sums.h"

namespace edge::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kPanel = 16;
constexpr int kBlockCols = 32;

__device__ int64_t block_index(const Panels& panels, int row, int64_t block) {
  const int panel = row / kPanel;
  const int left = panels.n_rows - panel * kPanel;
  const int panel_rows = left < kPanel ? left : kPanel;
  return panel * kPanel * panels.n_blocks + block * panel_rows + row % kPanel;
}

__device__ int level(float x, float inverse) {
  const int q = scalar::lane_to_int(x * inverse);
  return q > 127 ? 127 : q < -127 ? -127 : q;
}

__device__ void store_block(const Panels& to, int64_t at, int q, float scale) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int sum = q;
  for (int lanes = 8; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
  to.q[kBlockCols * at + lane] = static_cast<int8_t>(q);
  if (lane == 0) to.d[at] = scale;
  if (lane % 16 == 0) to.bias[2 * at + lane / 16] = -64 * sum;
}

// Block `block` of row `row`, of which this lane has column y (kernels/elementwise.h,
// quantize_row).
__device__ void write_block(const Act& out, int row, int64_t block, float y, int* flag) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (out.f != nullptr) out.f[row * out.n_cols_padded + kBlockCols * block + lane] = y;
  int largest = static_cast<int>(scalar::lane_bits(y) & 0x7fffffffu);
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const int other = __shfl_xor_sync(kAllLanes, largest, lanes);
    largest = other > largest ? other : largest;
  }
  if (largest > 0x7f7fffff) {
    if (lane == 0) *flag = 1;
    return;
  }
  const float amax = scalar::lane_float(static_cast<uint32_t>(largest));
  const bool is_zero = amax < 0x1p-100f;
  const float scale = is_zero ? 0.0f : amax / 127.0f;
  const int q = level(y, is_zero ? 0.0f : 127.0f / amax);
  if (out.a8.q != nullptr) store_block(out.a8, block_index(out.a8, row, block), q, scale);
  if (out.a8x2.q == nullptr) return;
  const int64_t at = block_index(out.a8x2, 2 * row, block);
  const float rest = fma_exact(-static_cast<float>(q), scale, y);
  store_block(out.a8x2, at, q, scale);
  store_block(out.a8x2, at + 1, level(rest, is_zero ? 0.0f : 254.0f / scale), scale / 254.0f);
}

// x[at + i] += what `more` says, for the block's row.
__device__ void add_more(const ResidualArgs& more, float* x, int64_t at, int64_t n, float* lanes) {
  if (more.delta == nullptr) return;
  const auto added = [&](int64_t i) {
    const float y = more.delta[at + i];
    return more.bias == nullptr ? y : y + more.bias[i];
  };
  const NormFactors factors = norm_factors(more.norm, n, lanes, added);
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    x[at + i] = x[at + i] + normed(more.norm, factors, added(i), i);
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads)
    norm_kernel(ResidualArgs more, FloatMatrix x, const int32_t* pick, NormArgs norm, Act out,
                int* flag) {
  EDGE_SHARED(float, lanes, [kLanes]);
  const int row = static_cast<int>(blockIdx.x);
  const int64_t at = (pick == nullptr ? row : pick[row]) * x.stride;
  add_more(more, x.data, at, x.n_cols, lanes);
  const auto value = [&](int64_t i) { return x.data[at + i]; };
  const NormFactors factors = norm_factors(norm, x.n_cols, lanes, value);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t block = threadIdx.x / 32; block < out.n_cols_padded / kBlockCols; block += kWarps) {
    const int64_t i = kBlockCols * block + lane;
    write_block(out, row, block, i < x.n_cols ? normed(norm, factors, value(i), i) : 0.0f, flag);
  }
}

__global__ void __launch_bounds__(kThreads) residual_kernel(ResidualArgs more, FloatMatrix x) {
  EDGE_SHARED(float, lanes, [kLanes]);
  add_more(more, x.data, blockIdx.x * x.stride, x.n_cols, lanes);
}

__global__ void __launch_bounds__(kThreads) quantize_kernel(FloatMatrix x, Act out, int* flag) {
  const int64_t block = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (block >= out.n_cols_padded / kBlockCols) return;
  const int64_t i = kBlockCols * block + threadIdx.x % 32;
  const float y = i < x.n_cols ? x.data[blockIdx.y * x.stride + i] : 0.0f;
  write_block(out, static_cast<int>(blockIdx.y), block, y, flag);
}

__device__ float activated(FfnAct act, float x) {
  switch (act) {
    case FfnAct::kSilu:
      return Silu::of({x}).v;
    case FfnAct::kGelu:
      return Gelu::of({x}).v;
    case FfnAct::kGeluTanh:
      return GeluTanh::of({x}).v;
    case FfnAct::kRelu:
      return Relu::of({x}).v;
  }
  return 0;
}

__global__ void __launch_bounds__(kThreads) activate_kernel(ActivateArgs args, Act out, int* flag) {
  const int64_t block = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (block >= out.n_cols_padded / kBlockCols) return;
  const int64_t i = kBlockCols * block + threadIdx.x % 32;
  const int64_t at = blockIdx.y * args.n_cols + i;
  const auto biased = [&](const float* x, const float* bias) {
    return bias == nullptr || i >= args.n_bias ? x[at] : x[at] + bias[i];
  };
  float y = 0;
  if (i < args.n_cols) {
    y = activated(args.act, biased(args.gate, args.gate_bias));
    if (args.up != nullptr) y = y * biased(args.up, args.up_bias);
  }
  write_block(out, static_cast<int>(blockIdx.y), block, y, flag);
}

__global__ void __launch_bounds__(kThreads)
    logits_kernel(float* logits, int64_t n, int64_t stride, float softcap, int* flag) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n) return;
  float* x = logits + blockIdx.y * stride + i;
  if ((scalar::lane_bits(*x) & 0x7fffffffu) >= 0x7f800000u) *flag = 1;
  if (softcap > 0) *x = softcapped({*x}, {softcap}).v;
}

dim3 grid_of(int64_t n, int64_t per_block, int n_rows) {
  return dim3(static_cast<unsigned>((n + per_block - 1) / per_block),
              static_cast<unsigned>(n_rows));
}
dim3 block_grid(const Act& out, int n_rows) {
  return grid_of(out.n_cols_padded / kBlockCols, kWarps, n_rows);
}

}  // namespace

void norm_rows(const ResidualArgs& more, const FloatMatrix& x, const int32_t* pick, int n_rows,
               const NormArgs& norm, const Act& out, int* flag, cudaStream_t s) {
  EDGE_LAUNCH(norm_kernel, dim3(static_cast<unsigned>(n_rows)), dim3(kThreads), s)
  (more, x, pick, norm, out, flag);
}

void add_residual(const ResidualArgs& more, const FloatMatrix& x, int n_rows, cudaStream_t s) {
  EDGE_LAUNCH(residual_kernel, dim3(static_cast<unsigned>(n_rows)), dim3(kThreads), s)(more, x);
}

void quantize_rows(const FloatMatrix& x, int n_rows, const Act& out, int* flag, cudaStream_t s) {
  EDGE_LAUNCH(quantize_kernel, block_grid(out, n_rows), dim3(kThreads), s)(x, out, flag);
}

void activate_rows(const ActivateArgs& args, int n_rows, const Act& out, int* flag,
                   cudaStream_t s) {
  EDGE_LAUNCH(activate_kernel, block_grid(out, n_rows), dim3(kThreads), s)(args, out, flag);
}

void finish_logits(float* logits, int n_rows, int64_t n, int64_t stride, float softcap, int* flag,
                   cudaStream_t s) {
  EDGE_LAUNCH(logits_kernel, grid_of(n, kThreads, n_rows), dim3(kThreads), s)
  (logits, n, stride, softcap, flag);
}

}  // namespace edge::cuda
