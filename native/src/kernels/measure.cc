// What the integer units of this machine can do: the ceiling that benchmarks compare with.
#include <algorithm>
#include <vector>

#include "base/os.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace edge {

double measure_int8_macs_per_s(int n_threads) {
  constexpr int64_t kTiles = 8;  // with four strips and 64 rows 32 KiB: in cache
  constexpr int64_t kStrips = 4;
  constexpr int kGemmRows = 64;
  constexpr int64_t kCalls = 200;  // of one unit
  constexpr int kRounds = 5;
  const MatmulFn gemm = active_kernels().gemm(Format::kE8_32, Act::kA8);
  const MatmulFn fn = gemm != nullptr ? gemm : active_kernels().matmul(Format::kE8_32, Act::kA8);
  const int n_rows = gemm != nullptr ? kGemmRows : kMaxKRows;
  const std::vector<uint8_t> strips(strip_bytes(Format::kE8_32, kTiles) * kStrips);
  const std::vector<int8_t> q(static_cast<size_t>(n_rows * kTiles * kTileK));
  const std::vector<float> d(static_cast<size_t>(n_rows * kTiles));
  const std::vector<int32_t> bias(static_cast<size_t>(n_rows * kTiles * 2));
  double best_s = 1e300;
  for (int round = 0; round < kRounds; ++round) {
    const int64_t start_ns = monotonic_ns();
    parallel_for(n_threads, n_threads, [&](int64_t, int) {
      alignas(64) float y[kGemmRows * kStrips * kTileRows];
      const MatmulArgs args{strips.data(), kStrips, kTiles, q.data(), d.data(),
                            bias.data(),   nullptr, n_rows, y,        kStrips * kTileRows};
      for (int64_t call = 0; call < kCalls; ++call) fn(args);
    });
    best_s = std::min(best_s, static_cast<double>(monotonic_ns() - start_ns) * 1e-9);
  }
  const double macs =
      static_cast<double>(n_threads * kCalls * kStrips * kTiles) * kTileK * kTileRows * n_rows;
  return macs / best_s;
}

}  // namespace edge
