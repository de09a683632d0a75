// What the integer units of this machine can do: the ceiling that benchmarks compare with.
#include <algorithm>
#include <vector>

#include "base/os.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace edge {

double measure_int8_macs_per_s(int n_threads) {
  constexpr int64_t kTiles = 8;     // 4 KiB of weights and 4 KiB of activations: L1
  constexpr int64_t kCalls = 2000;  // of one unit
  constexpr int kRounds = 5;
  const MatmulFn fn = active_kernels().matmul(Format::kE8_32, Act::kA8);
  const std::vector<uint8_t> strip(strip_bytes(Format::kE8_32, kTiles));
  const std::vector<int8_t> q(static_cast<size_t>(kMaxKRows * kTiles * kTileK));
  const std::vector<float> d(static_cast<size_t>(kMaxKRows * kTiles));
  const std::vector<int32_t> bias(static_cast<size_t>(kMaxKRows * kTiles * 2));
  double best_s = 1e300;
  for (int round = 0; round < kRounds; ++round) {
    const int64_t start_ns = monotonic_ns();
    parallel_for(n_threads, n_threads, [&](int64_t, int) {
      alignas(64) float y[kMaxKRows * kTileRows];
      const MatmulArgs args{strip.data(), 1,       kTiles,    q.data(), d.data(),
                            bias.data(),  nullptr, kMaxKRows, y,        kTileRows};
      for (int64_t call = 0; call < kCalls; ++call) fn(args);
    });
    best_s = std::min(best_s, static_cast<double>(monotonic_ns() - start_ns) * 1e-9);
  }
  const double macs =
      static_cast<double>(n_threads * kCalls * kTiles * kTileK) * kTileRows * kMaxKRows;
  return macs / best_s;
}

}  // namespace edge
