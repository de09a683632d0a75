#include "backends/cpu/matmul_driver.h"

#include <algorithm>

namespace edge {

namespace {

static_assert(kPanelRows == kMaxKRows, "a panel is one call of a K-row kernel");
constexpr size_t kUnitBytes = 96 << 10;  // fits a quarter of an L2 of 512 KiB
constexpr int64_t kMinUnitsPerThread = 4;
constexpr int64_t kGemmStrips = 4;  // gemm kernels take up to so many side by side

}  // namespace

MatmulDriver::MatmulDriver(const KernelTable& kernels, int n_threads) : n_threads_(n_threads) {
  for (const MatmulKernel& kernel : all_matmul_kernels()) {
    kernels_[static_cast<size_t>(kernel.format)][static_cast<size_t>(kernel.act)] =
        kernels.matmul(kernel.format, kernel.act);
    gemms_[static_cast<size_t>(kernel.format)][static_cast<size_t>(kernel.act)] =
        kernels.gemm(kernel.format, kernel.act);
  }
}

void MatmulDriver::run_strips(const Tensor& weight, const ActRows& act, int64_t strip0,
                              int64_t n_strips, float* y, int64_t y_stride) const {
  const MatmulFn fn = kernels_[static_cast<size_t>(weight.format)][static_cast<size_t>(weight.act)];
  const int64_t n_tiles = weight.n_tiles();
  MatmulArgs args;
  args.strips = reinterpret_cast<const uint8_t*>(weight.data) +
                strip_bytes(weight.format, n_tiles) * static_cast<size_t>(strip0);
  args.n_strips = n_strips;
  args.n_tiles = n_tiles;
  args.y_stride = y_stride;
  const MatmulFn gemm = gemms_[static_cast<size_t>(weight.format)][static_cast<size_t>(weight.act)];
  if (act.n_rows > kMaxKRows && gemm != nullptr) {
    args.q = act.q;
    args.d = act.d;
    args.bias = act.bias;
    args.n_rows = act.n_rows;
    args.y = y;
    gemm(args);
    return;
  }
  for (int row0 = 0; row0 < act.n_rows; row0 += kPanelRows) {
    args.n_rows = act.panel_rows(row0 / kPanelRows);
    if (weight.act == Act::kF32) {
      args.f = act.f + row0 * act.n_cols_padded;
    } else {
      const int64_t at = act.block_index(row0, 0);
      args.q = act.q + kTileK * at;
      args.d = act.d + at;
      args.bias = act.bias + 2 * at;
    }
    args.y = y + row0 * y_stride;
    fn(args);
  }
}

int64_t MatmulDriver::unit_strips(const Tensor& weight, int n_rows) const {
  const size_t bytes = std::max<size_t>(1, strip_bytes(weight.format, weight.n_tiles()));
  const int64_t by_bytes = static_cast<int64_t>(kUnitBytes / bytes);
  const int64_t by_share = weight.n_strips() / (kMinUnitsPerThread * n_threads_);
  if (n_rows > kMaxKRows) {
    return std::max(kGemmStrips, std::min(by_bytes, by_share) / kGemmStrips * kGemmStrips);
  }
  return std::max<int64_t>(1, std::min(by_bytes, by_share));
}

void MatmulDriver::run(std::initializer_list<Job> jobs, const ActRows& act) const {
  const auto n_units_of = [&](const Job& job) {
    const int64_t step = unit_strips(*job.weight, act.n_rows);
    return (job.weight->n_strips() + step - 1) / step;
  };
  int64_t n_units = 0;
  for (const Job& job : jobs) n_units += n_units_of(job);
  parallel_for(n_threads_, n_units, [&](int64_t unit, int) {
    for (const Job& job : jobs) {
      const int64_t n = n_units_of(job);
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
  });
}

}  // namespace edge
