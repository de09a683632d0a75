// Element-wise and row-reduction kernels, one table per ISA, all equal to the scalar one bit for
// bit. They are written once (kernels/generic/elementwise.inl.h) on the 16 lanes of vec16.h.
//
// Arguments are not checked. Rows need no alignment and no padding unless said; n may be 0.
// Knows nothing of threads, tensors or models.
#pragma once

#include <cstdint>

namespace edge {

struct ElementwiseKernels {
  // y = (x * r) * weight with r = 1 / sqrt(sum(x^2) / n + eps); n > 0. The sum runs over 16 lanes
  // with fma and the fixed tree. y holds n rounded up to 32, the padding is set to zero.
  void (*rmsnorm)(const float* x, const float* weight, float eps, int64_t n, float* y);

  // int8 per 32 columns: amax = max |x|, d = amax / 127, q = round_even(x * (127 / amax)) in
  // -127..127; d = 0 and q = 0 where amax < 2^-100. bias[g] = -64 * sum of q over 16 columns.
  // n_padded is a multiple of 32. Writes one row of a panel of n_rows rows (kernels/matmul_args.h):
  // block i of it goes to q[32 * n_rows * i], d[n_rows * i] and bias[2 * n_rows * i].
  // False, with the outputs unspecified, if a value is not finite.
  bool (*quantize_row)(const float* x, int64_t n_padded, int n_rows, int8_t* q, float* d,
                       int32_t* bias);

  // The same, and what the rounding left of it as a second row: with r = fma(-q, d, x), d2 = d /
  // 254 and q2 = round_even(r * (254 / d)) in -127..127; d2 = 0 and q2 = 0 where d = 0. |x - q*d -
  // q2*d2| is then at most d / 508 but for the rounding of d. The residual is the row of the panel
  // after the value's; n_rows counts both.
  bool (*quantize_row_x2)(const float* x, int64_t n_padded, int n_rows, int8_t* q, float* d,
                          int32_t* bias);

  // Residual, rmsnorm and quantize_row of one row in two sweeps: x += delta (unless null) with the
  // sum of squares, then the normed columns become int8 as they come. The outputs are those of add,
  // rmsnorm and quantize_row one after the other, bit for bit; columns beyond n are zeros.
  bool (*add_norm_quantize_row)(const float* delta, float* x, const float* weight, float eps,
                                int64_t n, int n_rows, int8_t* q, float* d, int32_t* bias);

  bool (*is_finite_row)(const float* x, int64_t n);

  // The largest of n > 0 finite values; of -0 and 0 either.
  float (*max_row)(const float* x, int64_t n);

  // The lowest index of the largest of n > 0 finite values.
  int64_t (*argmax_row)(const float* x, int64_t n);

  // Sum of exp((x[i] - max) * scale) in double, over 16 lanes and one fixed tree; no x is more than
  // max, scale > 0. Unless terms is null, terms[i] is each of them. exp is base/exact_math.h's.
  double (*exp_sum)(const float* x, int64_t n, double max, double scale, double* terms);

  // y = silu(gate) * up, silu(g) = g / (1 + exp(-g)). y may be gate or up.
  void (*swiglu)(const float* gate, const float* up, int64_t n, float* y);

  // y[i] = gate[i] * (sum over t of taps[t * n + i] * rows[t][i]), by fma from 0, t ascending to
  // n_taps > 0. y may be gate.
  void (*gated_taps)(const float* gate, const float* taps, const float* const* rows, int n_taps,
                     int64_t n, float* y);

  // x += y.
  void (*add)(const float* y, float* x, int64_t n);

  // Rotates the first n_rope dimensions of one head in place, halves convention: with x1 the first
  // and x2 the second n_rope / 2 of them, x1 = fma(x1, c, -(x2 * s)), x2 = fma(x2, c, x1 * s).
  void (*rope_row)(float* head, const float* cos, const float* sin, int n_rope);

  // cos[i] and sin[i] of the angle fl32(position * inv_freq[i]), each times `factor`.
  void (*rope_angles)(const float* inv_freq, int n, int32_t position, float factor, float* cos,
                      float* sin);

  // y[i] = float(x[i]), exact.
  void (*load_f16_row)(const uint16_t* x, int64_t n, float* y);
};

extern const ElementwiseKernels kElementwise_scalar;
extern const ElementwiseKernels kElementwise_x86_sse41;
extern const ElementwiseKernels kElementwise_x86_avx2;
extern const ElementwiseKernels kElementwise_x86_avx512bw;
extern const ElementwiseKernels kElementwise_arm_neon;

}  // namespace edge
