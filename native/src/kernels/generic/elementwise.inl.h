// The element-wise kernels of kernels/elementwise.h, which documents them.
//
// Included once per ISA inside its namespace, after vec16.h.
#include "kernels/generic/cos_sin.inl.h"
#include "kernels/generic/math.inl.h"
#include "kernels/generic/rows.inl.h"

void row_rmsnorm(const float* x, const float* weight, float eps, int64_t n, float* y) {
  V squares = zero();
  EDGE_FOR_LANES(i, lanes, n) {
    const V v = load_some(x + i, lanes);
    squares = fma(v, v, squares);
  }
  const V r = norm_factor(squares, n, eps);
  const int64_t n_padded = (n + 31) / 32 * 32;
  EDGE_FOR_LANES(i, lanes, n) {
    const V v = mul(mul(load_some(x + i, lanes), r), load_some(weight + i, lanes));
    store_some(y + i, v, lanes);
  }
  for (int64_t i = n; i < n_padded; ++i) y[i] = 0.0f;
}

// x * inverse as an integer within -127..127.
EDGE_INLINE I int8_levels(V x, V inverse) {
  const I limit = set1_i(127);
  return max(min(to_int(mul(x, inverse)), limit), sub(zero_i(), limit));
}

// Block `at` of an Int8 panel.
EDGE_INLINE void store_block(int64_t at, I q0, I q1, V scale, int8_t* q, float* d, int32_t* bias) {
  store_i8(q + 32 * at, q0);
  store_i8(q + 32 * at + 16, q1);
  store_n(d + at, scale, 1);
  bias[2 * at] = -64 * reduce_add_i(q0);
  bias[2 * at + 1] = -64 * reduce_add_i(q1);
}

template <bool kWithResidual>
EDGE_INLINE bool quantize_blocks(const float* x, int64_t n_padded, int n_rows, int8_t* q, float* d,
                                 int32_t* bias) {
  const I magnitude_bits = set1_i(0x7fffffff);
  const V levels = set1(127.0f);
  for (int64_t block = 0; block < n_padded / 32; ++block) {
    const V x0 = load(x + 32 * block);
    const V x1 = load(x + 32 * block + 16);
    const I m0 = bit_and(as_i(x0), magnitude_bits);
    const I m1 = bit_and(as_i(x1), magnitude_bits);
    const I amax_bits = set1_i(reduce_max_i(max(m0, m1)));
    if (any(cmp_gt(amax_bits, set1_i(0x7f7fffff)))) return false;
    const V amax = as_f(amax_bits);
    const M is_zero = cmp_lt(amax, set1(0x1p-100f));
    const V inverse = select(is_zero, zero(), div(levels, amax));
    const V scale = select(is_zero, zero(), div(amax, levels));
    const I q0 = int8_levels(x0, inverse);
    const I q1 = int8_levels(x1, inverse);
    const int64_t at = n_rows * block;
    store_block(at, q0, q1, scale, q, d, bias);
    if constexpr (kWithResidual) {
      const V finer = set1(254.0f);
      const V inverse2 = select(is_zero, zero(), div(finer, scale));
      const V r0 = fma(neg(to_float(q0)), scale, x0);
      const V r1 = fma(neg(to_float(q1)), scale, x1);
      store_block(at + 1, int8_levels(r0, inverse2), int8_levels(r1, inverse2), div(scale, finer),
                  q, d, bias);
    }
  }
  return true;
}

bool row_quantize(const float* x, int64_t n_padded, int n_rows, int8_t* q, float* d,
                  int32_t* bias) {
  return quantize_blocks<false>(x, n_padded, n_rows, q, d, bias);
}

bool row_quantize_x2(const float* x, int64_t n_padded, int n_rows, int8_t* q, float* d,
                     int32_t* bias) {
  return quantize_blocks<true>(x, n_padded, n_rows, q, d, bias);
}

bool row_add_norm_quantize(const float* delta, float* x, const float* weight, float eps, int64_t n,
                           int n_rows, int8_t* q, float* d, int32_t* bias) {
  V squares = zero();
  EDGE_FOR_LANES(i, lanes, n) {
    V v = load_some(x + i, lanes);
    if (delta != nullptr) {
      v = add(v, load_some(delta + i, lanes));
      store_some(x + i, v, lanes);
    }
    squares = fma(v, v, squares);
  }
  const V r = norm_factor(squares, n, eps);
  for (int64_t i = 0; i < n; i += 32) {
    float y[32];
    const int64_t lanes0 = n - i < 16 ? n - i : 16;
    const int64_t lanes1 = n - i < 32 ? n - i - lanes0 : 16;
    store(y, mul(mul(load_some(x + i, lanes0), r), load_some(weight + i, lanes0)));
    store(y + 16, lanes1 == 0 ? zero()
                              : mul(mul(load_some(x + i + 16, lanes1), r),
                                    load_some(weight + i + 16, lanes1)));
    const int64_t at = n_rows * (i / 32);
    if (!row_quantize(y, 32, n_rows, q + 32 * at, d + at, bias + 2 * at)) return false;
  }
  return true;
}

bool row_is_finite(const float* x, int64_t n) {
  const I magnitude_bits = set1_i(0x7fffffff);
  I largest = zero_i();
  EDGE_FOR_LANES(i, lanes, n) {
    largest = max(largest, bit_and(as_i(load_some(x + i, lanes)), magnitude_bits));
  }
  return reduce_max_i(largest) < 0x7f800000;
}

float row_max(const float* x, int64_t n) {
  V even = set1(x[0]), odd = even;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    even = max(load(x + i), even);
    odd = max(load(x + i + 16), odd);
  }
  float lanes[16];
  store(lanes, max(even, odd));
  float largest = x[0];
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

int64_t row_argmax(const float* x, int64_t n) {
  int32_t lane_at[16];
  for (int32_t l = 0; l < 16; ++l) lane_at[l] = l;
  const int64_t n_whole = n / 16 * 16;
  const I stride = set1_i(16);
  I index = load_i(lane_at), at = index;
  V largest = set1(x[0]);
  for (int64_t i = 0; i < n_whole; i += 16) {
    const V v = load(x + i);
    const M is_larger = cmp_gt(v, largest);
    largest = select(is_larger, v, largest);
    at = select(is_larger, index, at);
    index = add(index, stride);
  }
  store_i(lane_at, at);
  // A lane that nothing beat holds x[0] at its own number, of which only the first is true.
  int64_t best = 0;
  for (int64_t l = 0; l < 16 && n_whole > 0; ++l) {
    const int64_t i = lane_at[l];
    if (x[i] > x[best] || (x[i] == x[best] && i < best)) best = i;
  }
  for (int64_t i = n_whole; i < n; ++i) {
    if (x[i] > x[best]) best = i;
  }
  return best;
}

double row_exp_sum(const float* x, int64_t n, double max, double scale, double* terms) {
  double sums[16] = {};
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t lanes = n - i < 16 ? n - i : 16;
    double term[16];
    if (lanes == 16) {
      for (int l = 0; l < 16; ++l) {
        term[l] = exp_nonpositive((static_cast<double>(x[i + l]) - max) * scale);
      }
      for (int l = 0; l < 16; ++l) sums[l] += term[l];
    } else {
      for (int64_t l = 0; l < lanes; ++l) {
        term[l] = exp_nonpositive((static_cast<double>(x[i + l]) - max) * scale);
        sums[l] += term[l];
      }
    }
    if (terms != nullptr) {
      memcpy(terms + i, term, static_cast<size_t>(lanes) * sizeof term[0]);
    }
  }
  for (int width = 8; width >= 1; width /= 2) {
    for (int l = 0; l < width; ++l) sums[l] += sums[l + width];
  }
  return sums[0];
}

void row_swiglu(const float* gate, const float* up, int64_t n, float* y) {
  EDGE_FOR_LANES(i, lanes, n) {
    store_some(y + i, mul(silu(load_some(gate + i, lanes)), load_some(up + i, lanes)), lanes);
  }
}

void row_gated_taps(const float* gate, const float* taps, const float* const* rows, int n_taps,
                    int64_t n, float* y) {
  EDGE_FOR_LANES(i, lanes, n) {
    V sum = zero();
    for (int t = 0; t < n_taps; ++t) {
      sum = fma(load_some(taps + t * n + i, lanes), load_some(rows[t] + i, lanes), sum);
    }
    store_some(y + i, mul(load_some(gate + i, lanes), sum), lanes);
  }
}

void row_add(const float* y, float* x, int64_t n) {
  EDGE_FOR_LANES(i, lanes, n) {
    store_some(x + i, add(load_some(x + i, lanes), load_some(y + i, lanes)), lanes);
  }
}

void row_rope(float* head, const float* cos, const float* sin, int n_rope) {
  float* x1 = head;
  float* x2 = head + n_rope / 2;
  EDGE_FOR_LANES(i, lanes, n_rope / 2) {
    const V a = load_some(x1 + i, lanes);
    const V b = load_some(x2 + i, lanes);
    const V c = load_some(cos + i, lanes);
    const V s = load_some(sin + i, lanes);
    store_some(x1 + i, fma(a, c, neg(mul(b, s))), lanes);
    store_some(x2 + i, fma(b, c, mul(a, s)), lanes);
  }
}

void row_rope_angles(const float* inv_freq, int n, int32_t position, float factor, float* cos,
                     float* sin) {
  for (int i = 0; i < n; ++i) {
    const CosSin value = cos_sin(static_cast<float>(position) * inv_freq[i]);
    cos[i] = value.cos * factor;
    sin[i] = value.sin * factor;
  }
}

void row_load_f16(const uint16_t* x, int64_t n, float* y) {
  EDGE_FOR_LANES(i, lanes, n) {
    if (lanes == 16) {
      store(y + i, load_f16(x + i));
      continue;
    }
    uint16_t tail[16] = {};
    for (int64_t l = 0; l < lanes; ++l) tail[l] = x[i + l];
    store_some(y + i, load_f16(tail), lanes);
  }
}

constexpr ElementwiseKernels kTable = {
    .rmsnorm = row_rmsnorm,
    .quantize_row = row_quantize,
    .quantize_row_x2 = row_quantize_x2,
    .add_norm_quantize_row = row_add_norm_quantize,
    .is_finite_row = row_is_finite,
    .max_row = row_max,
    .argmax_row = row_argmax,
    .exp_sum = row_exp_sum,
    .swiglu = row_swiglu,
    .gated_taps = row_gated_taps,
    .add = row_add,
    .rope_row = row_rope,
    .rope_angles = row_rope_angles,
    .load_f16_row = row_load_f16,
};

#undef EDGE_FOR_LANES
