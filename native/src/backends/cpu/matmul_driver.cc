#include "backends/cpu/matmul_driver.h"

#include <algorithm>

namespace edge {

namespace {

static_assert(kPanelRows == kMaxKRows, "a panel is one call of a K-row kernel");
// Weights of a unit. Many rows come back to them: they fit a quarter of an L2 of 512 KiB. Few rows
// read them once, and every unit begins with a cold stream: 96 KiB cost 5 % of the time of a token.
constexpr size_t kGemmUnitBytes = 96 << 10;
constexpr size_t kStreamUnitBytes = 512 << 10;
constexpr int64_t kMinUnitsPerThread = 4;
constexpr int64_t kGemmStrips = 4;  // gemm kernels take up to so many side by side
// What a8x2 keeps before it adds pairs of rows: a pass of a gemm, 32 KiB of a stack of 1 MiB.
constexpr int kPartRows = 128;
constexpr int64_t kPartFloats = kPartRows * kGemmStrips * kTileRows;
constexpr int64_t kPairStrips = 2;  // a quantization block of what they make
// What a core reads in some 12 us, a quarter of an L2 of 512 KiB. Twice as much was no faster.
constexpr size_t kReadAheadBytes = 128 << 10;

}  // namespace

MatmulDriver::MatmulDriver(const KernelTable& kernels, int n_threads) : n_threads_(n_threads) {
  expected_.reserve(static_cast<size_t>(n_threads));
  for (const MatmulKernel& kernel : all_matmul_kernels()) {
    kernels_[static_cast<size_t>(kernel.format)][static_cast<size_t>(kernel.act)] =
        kernels.matmul(kernel.format, kernel.act);
    gemms_[static_cast<size_t>(kernel.format)] = kernels.gemm(kernel.format, Act::kA8);
  }
}

void MatmulDriver::run_strips(const Tensor& weight, const ActRows& act, int64_t strip0,
                              int64_t n_strips, float* y, int64_t y_stride) const {
  MatmulArgs args;
  args.n_tiles = weight.n_tiles();
  args.strips = reinterpret_cast<const uint8_t*>(weight.data) +
                strip_bytes(weight.format, args.n_tiles) * static_cast<size_t>(strip0);
  args.n_strips = n_strips;
  args.y = y;
  args.y_stride = y_stride;
  switch (weight.act) {
    case Act::kA8:
      return run_int8(weight.format, act.a8, 0, act.a8.n_rows, args);
    case Act::kA8x2:
      return run_int8_twice(weight.format, act.a8x2, args);
    case Act::kF32:
      return run_f32(weight.format, act, args);
  }
}

void MatmulDriver::run_f32(Format format, const ActRows& act, MatmulArgs args) const {
  const MatmulFn fn = kernels_[static_cast<size_t>(format)][static_cast<size_t>(Act::kF32)];
  float* const y = args.y;
  for (int row0 = 0; row0 < act.n_rows; row0 += kPanelRows) {
    args.n_rows = std::min(kPanelRows, act.n_rows - row0);
    args.f = act.f + row0 * act.n_cols_padded;
    args.y = y + row0 * args.y_stride;
    fn(args);
  }
}

void MatmulDriver::run_int8(Format format, const Int8Rows& rows, int row0, int n_rows,
                            MatmulArgs args) const {
  const MatmulFn fn = kernels_[static_cast<size_t>(format)][static_cast<size_t>(Act::kA8)];
  const MatmulFn gemm = gemms_[static_cast<size_t>(format)];
  const bool at_once = n_rows > kMaxKRows && gemm != nullptr;
  float* const y = args.y;
  for (int row = 0; row < n_rows; row += kPanelRows) {
    const int64_t at = rows.block_index(row0 + row, 0);
    args.q = rows.q + kTileK * at;
    args.d = rows.d + at;
    args.bias = rows.bias + 2 * at;
    args.y = y + row * args.y_stride;
    args.n_rows = at_once ? n_rows : std::min(kPanelRows, n_rows - row);
    if (at_once) return gemm(args);
    fn(args);
  }
}

void MatmulDriver::run_int8_twice(Format format, const Int8Rows& rows, MatmulArgs args) const {
  float parts[kPartFloats];
  const size_t bytes = strip_bytes(format, args.n_tiles);
  const MatmulArgs whole = args;
  for (int row0 = 0; row0 < rows.n_rows; row0 += kPartRows) {
    const int n_rows = std::min(kPartRows, rows.n_rows - row0);
    const int64_t step = kPartFloats / (n_rows * kTileRows);
    for (int64_t strip = 0; strip < whole.n_strips; strip += step) {
      args.strips = whole.strips + bytes * static_cast<size_t>(strip);
      args.n_strips = std::min(step, whole.n_strips - strip);
      args.y = parts;
      args.y_stride = args.n_strips * kTileRows;
      run_int8(format, rows, row0, n_rows, args);
      for (int row = 0; row < n_rows; row += 2) {
        const float* value = parts + row * args.y_stride;
        const float* residual = value + args.y_stride;
        float* y = whole.y + (row0 + row) / 2 * whole.y_stride + strip * kTileRows;
        for (int64_t i = 0; i < args.y_stride; ++i) y[i] = value[i] + residual[i];
      }
    }
  }
}

int64_t MatmulDriver::unit_strips(const Tensor& weight, int n_rows) const {
  const size_t bytes = std::max<size_t>(1, strip_bytes(weight.format, weight.n_tiles()));
  const bool is_gemm = n_rows > kMaxKRows;
  const int64_t by_bytes =
      static_cast<int64_t>((is_gemm ? kGemmUnitBytes : kStreamUnitBytes) / bytes);
  const int64_t by_share = weight.n_strips() / (kMinUnitsPerThread * n_threads_);
  const int64_t together = is_gemm ? kGemmStrips : kPairStrips;
  return std::max(together, std::min(by_bytes, by_share) / together * together);
}

int64_t MatmulDriver::n_units(const Tensor& weight, int n_rows) const {
  const int64_t step = unit_strips(weight, n_rows);
  return (weight.n_strips() + step - 1) / step;
}

void MatmulDriver::expect(std::initializer_list<const Tensor*> weights, int n_rows) {
  expected_.clear();
  // Many rows take their time over a tile, and gemm kernels fetch the next one meanwhile.
  if (n_rows > kMaxKRows) return;
  for (int thread = 0; thread < n_threads_; ++thread) {
    expected_.push_back(first_reads(weights, n_rows, thread));
  }
}

ReadAhead MatmulDriver::first_reads(std::initializer_list<const Tensor*> weights, int n_rows,
                                    int thread) const {
  int64_t total = 0;
  for (const Tensor* weight : weights) total += n_units(*weight, n_rows);
  const int n_threads = static_cast<int>(std::min<int64_t>(n_threads_, total));
  if (thread >= n_threads) return {};
  int64_t unit = first_unit(thread, n_threads, total);
  for (const Tensor* weight : weights) {
    const int64_t n = n_units(*weight, n_rows);
    if (unit >= n) {
      unit -= n;
      continue;
    }
    const size_t bytes = strip_bytes(weight->format, weight->n_tiles());
    const auto strip = static_cast<size_t>(unit * unit_strips(*weight, n_rows));
    const size_t left = (static_cast<size_t>(weight->n_strips()) - strip) * bytes;
    return {weight->data + strip * bytes, std::min(left, kReadAheadBytes)};
  }
  return {};
}

void MatmulDriver::run(std::initializer_list<Job> jobs, const ActRows& act) const {
  int64_t total = 0;
  for (const Job& job : jobs) total += n_units(*job.weight, act.n_rows);
  const auto run_unit = [&](int64_t unit, int) {
    for (const Job& job : jobs) {
      const int64_t n = n_units(*job.weight, act.n_rows);
      if (unit >= n) {
        unit -= n;
        continue;
      }
      const int64_t step = unit_strips(*job.weight, act.n_rows);
      const int64_t strip0 = unit * step;
      const int64_t n_strips = std::min(step, job.weight->n_strips() - strip0);
      run_strips(*job.weight, act, strip0, n_strips, job.y + strip0 * kTileRows, job.y_stride);
      return;
    }
  };
  parallel_for(n_threads_, total, run_unit, expected_);
}

}  // namespace edge
