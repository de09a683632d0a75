// The row kernels of kernels/variants.h, which documents them.
//
// Included once per ISA inside its namespace, after vec16.h.
#include "kernels/generic/activations.inl.h"
#include "kernels/generic/rows.inl.h"

template <class F>
void row_activate(const float* x, const float* up, int64_t n, float* y) {
  EDGE_FOR_LANES(i, lanes, n) {
    V v = F::of(load_some(x + i, lanes));
    if (up != nullptr) v = mul(v, load_some(up + i, lanes));
    store_some(y + i, v, lanes);
  }
}

void row_layernorm(const float* x, const float* weight, const float* bias, float eps, int64_t n,
                   float* y) {
  V sum = zero();
  EDGE_FOR_LANES(i, lanes, n) sum = add(sum, load_some(x + i, lanes));
  const V mean = set1(reduce_add(sum) / static_cast<float>(n));
  EDGE_FOR_LANES(i, lanes, n) store_some(y + i, sub(load_some(x + i, lanes), mean), lanes);
  V squares = zero();
  EDGE_FOR_LANES(i, lanes, n) {
    const V v = load_some(y + i, lanes);
    squares = fma(v, v, squares);
  }
  const V r = norm_factor(squares, n, eps);
  EDGE_FOR_LANES(i, lanes, n) {
    const V v = mul(load_some(y + i, lanes), r);
    store_some(y + i, fma(v, load_some(weight + i, lanes), load_some(bias + i, lanes)), lanes);
  }
  for (int64_t i = n; i < (n + 31) / 32 * 32; ++i) y[i] = 0.0f;
}

void row_softcap(float* x, int64_t n, float cap) {
  EDGE_FOR_LANES(i, lanes, n) {
    store_some(x + i, softcapped(load_some(x + i, lanes), set1(cap)), lanes);
  }
}

void row_normalize(float* x, int64_t n) {
  V sum = zero();
  EDGE_FOR_LANES(i, lanes, n) sum = add(sum, load_some(x + i, lanes));
  const V total = set1(reduce_add(sum));
  EDGE_FOR_LANES(i, lanes, n) store_some(x + i, div(load_some(x + i, lanes), total), lanes);
}

void row_softmax(float* x, int64_t n) {
  float largest = x[0];  // the same in any order
  for (int64_t i = 1; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  const V m = set1(largest);
  EDGE_FOR_LANES(i, lanes, n) store_some(x + i, exp(sub(load_some(x + i, lanes), m)), lanes);
  row_normalize(x, n);
}

void row_add_scaled(const float* y, float scale, float* x, int64_t n) {
  const V factor = set1(scale);
  EDGE_FOR_LANES(i, lanes, n) {
    store_some(x + i, fma(load_some(y + i, lanes), factor, load_some(x + i, lanes)), lanes);
  }
}

constexpr VariantKernels kTable = {
    .activate = {row_activate<Silu>, row_activate<Gelu>, row_activate<GeluTanh>,
                 row_activate<Relu>},
    .layernorm = row_layernorm,
    .softcap = row_softcap,
    .softmax = row_softmax,
    .normalize = row_normalize,
    .add_scaled = row_add_scaled,
};

#undef EDGE_FOR_LANES
