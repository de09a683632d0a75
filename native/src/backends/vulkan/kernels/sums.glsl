// Sums over the 16 virtual lanes of a row (gpu/sums.inl.h), and norms of a row. All threads of the
// group call these.
#include "numbers.glsl"

const int kLanes = 16;
const uint kLayerNorm = 1u;  // NormKind

shared float lanes[kLanes];

float tree_sum(float sums[kLanes]) {
  [[unroll]] for (int width = kLanes / 2; width >= 1; width /= 2) {
    [[unroll]] for (int l = 0; l < width; ++l) sums[l] = add(sums[l], sums[l + width]);
  }
  return sums[0];
}
// Of what threads 0 to 15 left in `lanes`.
float total_of_lanes() {
  SYNC();
  float sums[kLanes];
  [[unroll]] for (int l = 0; l < kLanes; ++l) sums[l] = lanes[l];
  const float total = tree_sum(sums);
  SYNC();
  return total;
}

// x[i], and bias[i] more where there is one.
struct Column {
  row_ptr x;
  float_ptr bias;
};
Column column_of(float_ptr x, float_ptr bias) { return Column(row_ptr(uint64_t(x)), bias); }
float value_of(Column column, int64_t i) {
  const float x = AT(column.x, i).v;
  return IS_NULL(column.bias) ? x : add(x, AT(column.bias, i).v);
}

float sum_of(Column column, int64_t n) {
  if (THREAD < kLanes) {
    float sum = 0.0;
    for (int64_t i = THREAD; i < n; i += kLanes) sum = add(sum, value_of(column, i));
    lanes[THREAD] = sum;
  }
  return total_of_lanes();
}
float squares_of(Column column, int64_t n, float mean, bool is_centred) {
  if (THREAD < kLanes) {
    float sum = 0.0;
    for (int64_t i = THREAD; i < n; i += kLanes) {
      const float x = value_of(column, i);
      const float v = is_centred ? sub(x, mean) : x;
      sum = fma_exact(v, v, sum);
    }
    lanes[THREAD] = sum;
  }
  return total_of_lanes();
}

struct NormFactors {
  float mean;
  float inverse;
};
NormFactors norm_factors(NormArgs norm, int64_t n, Column column) {
  NormFactors factors = NormFactors(0.0, 0.0);
  if (IS_NULL(norm.weight)) return factors;
  const float length = float(n);
  const bool is_layer = uint(norm.kind) == kLayerNorm;
  if (is_layer) factors.mean = div(sum_of(column, n), length);
  const float squares = squares_of(column, n, factors.mean, is_layer);
  factors.inverse = div(1.0, square_root(add(div(squares, length), norm.eps)));
  return factors;
}
float normed(NormArgs norm, NormFactors factors, float v, int64_t i) {
  if (IS_NULL(norm.weight)) return v;
  if (uint(norm.kind) != kLayerNorm) return mul(mul(v, factors.inverse), AT(norm.weight, i).v);
  return fma_exact(mul(sub(v, factors.mean), factors.inverse), AT(norm.weight, i).v, AT(norm.bias, i).v);
}
