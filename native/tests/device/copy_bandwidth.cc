// How fast this GPU copies its own memory: what the decoding of weights is measured against.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>

namespace {

constexpr size_t kBytes = size_t{1} << 30;
constexpr int kCopies = 20;

bool is_ok(cudaError_t error) {
  if (error != cudaSuccess) std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  return error == cudaSuccess;
}

}  // namespace

// Prints bytes read and written per second, the best of the copies.
int main() {
  void *from = nullptr, *to = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  if (!is_ok(cudaMalloc(&from, kBytes)) || !is_ok(cudaMalloc(&to, kBytes)) ||
      !is_ok(cudaEventCreate(&begin)) || !is_ok(cudaEventCreate(&end))) {
    return 1;
  }
  double best = 0;
  for (int i = 0; i < kCopies; ++i) {
    float ms = 0;
    if (!is_ok(cudaEventRecord(begin)) ||
        !is_ok(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice)) ||
        !is_ok(cudaEventRecord(end)) || !is_ok(cudaEventSynchronize(end)) ||
        !is_ok(cudaEventElapsedTime(&ms, begin, end))) {
      return 1;
    }
    best = std::max(best, 2e-6 * static_cast<double>(kBytes) / static_cast<double>(ms));
  }
  std::printf("{\"copy_gb_per_s\": %.1f}\n", best);
  return 0;
}
