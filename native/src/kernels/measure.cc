// What the integer units and the memory of this machine can do: the ceilings that benchmarks
// compare with.
#include <algorithm>
#include <atomic>
#include <span>
#include <vector>

#include "base/os.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace edge {
namespace {

constexpr int kRounds = 5;  // the best one counts: others may have been disturbed
constexpr size_t kReadUnitBytes = size_t{4} << 20;

// Folds a range in a way that compilers vectorise and cannot leave out.
uint64_t fold(const std::byte* data, size_t n_bytes) {
  const uint64_t* words = reinterpret_cast<const uint64_t*>(data);
  uint64_t lanes[8] = {};
  for (size_t i = 0; i < n_bytes / sizeof(uint64_t); i += 8) {
    for (size_t j = 0; j < 8; ++j) lanes[j] ^= words[i + j];
  }
  uint64_t all = 0;
  for (const uint64_t lane : lanes) all ^= lane;
  return all;
}

}  // namespace

double read_all_s(std::span<const std::byte> bytes, int n_threads) {
  std::atomic<uint64_t> sink{0};
  const int64_t start_ns = monotonic_ns();
  const int64_t n_units = static_cast<int64_t>(bytes.size() / kReadUnitBytes);
  parallel_for(n_threads, n_units, [&](int64_t unit, int) {
    const std::byte* data = bytes.data() + static_cast<size_t>(unit) * kReadUnitBytes;
    sink.fetch_xor(fold(data, kReadUnitBytes), std::memory_order_relaxed);
  });
  return static_cast<double>(monotonic_ns() - start_ns) * 1e-9;
}

double measure_int8_macs_per_s(int n_threads) {
  constexpr int64_t kTiles = 8;  // with four strips and 64 rows 32 KiB: in cache
  constexpr int64_t kStrips = 4;
  constexpr int kGemmRows = 64;
  constexpr int64_t kCalls = 200;  // of one unit
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

Result<double> measure_read_bytes_per_s(int n_threads) {
  constexpr size_t kBytes = size_t{256} << 20;  // far more than any cache
  EDGE_ASSIGN_OR_RETURN(const PageBuffer buffer, PageBuffer::allocate(kBytes));
  // Written first: untouched pages would all be the one zero page of the OS.
  parallel_for(n_threads, kBytes / kReadUnitBytes, [&](int64_t unit, int) {
    std::fill_n(buffer.data() + static_cast<size_t>(unit) * kReadUnitBytes, kReadUnitBytes,
                static_cast<std::byte>(unit));
  });
  double best_s = 1e300;
  for (int round = 0; round < kRounds; ++round) {
    best_s = std::min(best_s, read_all_s({buffer.data(), kBytes}, n_threads));
  }
  return static_cast<double>(kBytes) / best_s;
}

}  // namespace edge
