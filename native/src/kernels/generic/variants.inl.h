// The row kernels of kernels/variants.h, which documents them.
//
// Included once per ISA inside its namespace, after vec16.h.
#include "kernels/generic/math.inl.h"
#include "kernels/generic/rows.inl.h"

// erf within 2 ulp. Up to 1 x + x P(x^2), above 1 - exp(Q(|x|)): polynomials fitted on Chebyshev
// nodes to erf(x) / x - 1 and to log(1 - erf(x)) on 1..4; beyond 4 it is 1.
EDGE_INLINE V erf(V x) {
  const V one = set1(1.0f);
  const V size = abs(x);
  const V z = mul(x, x);
  V p = set1(0x1.4a9dacp-14f);
  p = fma(p, z, set1(-0x1.a46b40p-11f));
  p = fma(p, z, set1(0x1.541636p-8f));
  p = fma(p, z, set1(-0x1.b7fb38p-6f));
  p = fma(p, z, set1(0x1.ce2d18p-4f));
  p = fma(p, z, set1(-0x1.81273ep-2f));
  p = fma(p, z, set1(0x1.06eba8p-3f));
  const V inner = fma(p, x, x);
  const V t = min(set1(4.0f), size);  // this operand order lets NaN through
  V q = set1(-1.3309389942151029e-05f);
  q = fma(q, t, set1(0.0003175720339640975f));
  q = fma(q, t, set1(-0.0034368676133453846f));
  q = fma(q, t, set1(0.022621985524892807f));
  q = fma(q, t, set1(-0.10331898182630539f));
  q = fma(q, t, set1(-0.6390933394432068f));
  q = fma(q, t, set1(-1.125925898551941f));
  q = fma(q, t, set1(-0.0007569686276838183f));
  const V outer = sub(one, exp(q));
  return select(cmp_lt(size, one), inner, select(cmp_lt(x, zero()), neg(outer), outer));
}

struct Silu {
  static EDGE_MEMBER_INLINE V of(V x) { return silu(x); }
};
struct Gelu {
  static EDGE_MEMBER_INLINE V of(V x) {
    const V phi = add(set1(1.0f), erf(mul(x, set1(0.70710678f))));
    return mul(mul(set1(0.5f), x), phi);
  }
};
struct GeluTanh {
  static EDGE_MEMBER_INLINE V of(V x) {
    const V cubic = mul(mul(set1(0.044715f), x), mul(x, x));
    const V phi = add(set1(1.0f), tanh(mul(set1(0.79788456f), add(x, cubic))));
    return mul(mul(set1(0.5f), x), phi);
  }
};
struct Relu {
  static EDGE_MEMBER_INLINE V of(V x) { return max(zero(), x); }  // lets NaN through
};

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
