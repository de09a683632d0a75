#include "backends/cpu/hadamard.h"

#include <bit>
#include <cmath>
#include <vector>

#include "doctest/doctest.h"

namespace edge {
namespace {

// Row i, column j of the Hadamard matrix in natural order.
float sign(int i, int j) { return std::popcount(static_cast<unsigned>(i & j)) % 2 == 0 ? 1 : -1; }

TEST_CASE("hadamard: each block of the largest power of two is multiplied by the matrix") {
  for (const int head_dim : {2, 6, 8, 40, 64, 96, 128}) {
    const int n = head_dim & -head_dim;
    std::vector<float> heads(static_cast<size_t>(3 * head_dim));
    for (size_t i = 0; i < heads.size(); ++i) heads[i] = static_cast<float>(i * i % 31) - 15.0f;
    const std::vector<float> before = heads;
    hadamard(heads.data(), 3, head_dim);
    for (int i = 0; i < 3 * head_dim; ++i) {
      double sum = 0;
      for (int j = 0; j < n; ++j) {
        sum += static_cast<double>(sign(i % n, j) * before[static_cast<size_t>(i / n * n + j)]);
      }
      const double wanted = sum / std::sqrt(n);
      CHECK(std::abs(static_cast<double>(heads[static_cast<size_t>(i)]) - wanted) <= 1e-4);
    }
    hadamard(heads.data(), 3, head_dim);
    for (size_t i = 0; i < heads.size(); ++i) CHECK(std::abs(heads[i] - before[i]) <= 1e-4f);
  }
}

TEST_CASE("hadamard: one large channel is spread evenly") {
  std::vector<float> head(64, 0.0f);
  head[37] = 8.0f;
  hadamard(head.data(), 1, 64);
  for (const float x : head) CHECK(std::abs(x) == 1.0f);
}

}  // namespace
}  // namespace edge
