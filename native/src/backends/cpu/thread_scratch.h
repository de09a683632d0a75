// Grow-only scratch with one part per thread.
#pragma once

#include <cstdint>
#include <vector>

namespace edge {

class ThreadScratch {
 public:
  explicit ThreadScratch(int n_threads) : parts_(static_cast<size_t>(n_threads)) {}
  void reserve(int64_t n_floats) {
    for (auto& part : parts_) {
      if (static_cast<int64_t>(part.size()) < n_floats) part.resize(static_cast<size_t>(n_floats));
    }
  }
  float* get(int thread) { return parts_[static_cast<size_t>(thread)].data(); }

 private:
  std::vector<std::vector<float>> parts_;
};

}  // namespace edge
