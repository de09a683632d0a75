#include "backends/cpu/hadamard.h"

#include <cmath>

namespace edge {

void hadamard(float* heads, int n_heads, int head_dim) {
  const int n = head_dim & -head_dim;
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(n)));
  const int n_channels = n_heads * head_dim;
  for (int distance = 1; distance < n; distance *= 2) {
    for (int begin = 0; begin < n_channels; begin += 2 * distance) {
      for (int i = begin; i < begin + distance; ++i) {
        const float a = heads[i], b = heads[i + distance];
        heads[i] = a + b;
        heads[i + distance] = a - b;
      }
    }
  }
  for (int i = 0; i < n_channels; ++i) heads[i] *= scale;
}

}  // namespace edge
