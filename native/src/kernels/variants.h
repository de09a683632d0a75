// Row kernels of the model variants that a plain Llama has no use for. One table per ISA, all equal
// to the scalar one bit for bit, written once (kernels/generic/variants.inl.h) on vec16.h.
//
// Arguments are not checked. Rows need no alignment and no padding unless said; n may be 0.
// Knows nothing of threads, tensors or models.
#pragma once

#include <cstdint>

namespace edge {

struct VariantKernels {
  // y = f(x) * up, or f(x) where up is null; f by FfnAct (backends/op_kinds.h): silu, gelu by erf,
  // gelu by tanh, relu. y may be x or up.
  void (*activate[4])(const float* x, const float* up, int64_t n, float* y);

  // With mean = sum(x) / n, c = x - mean and r = 1 / sqrt(sum(c^2) / n + eps): y = fma(c * r,
  // weight, bias); n > 0. Both sums run over 16 lanes and the fixed tree, that of squares by fma.
  // y holds n rounded up to 32, the padding is set to zero; it is not x.
  void (*layernorm)(const float* x, const float* weight, const float* bias, float eps, int64_t n,
                    float* y);

  // x = cap * tanh(x / cap).
  void (*softcap)(float* x, int64_t n, float cap);

  // x[i] = exp(x[i] - max x), then normalize(); x finite, n > 0.
  void (*softmax)(float* x, int64_t n);
  // x[i] = x[i] / sum of x; the sum runs over 16 lanes and the fixed tree.
  void (*normalize)(float* x, int64_t n);
  // x = fma(y, scale, x).
  void (*add_scaled)(const float* y, float scale, float* x, int64_t n);
};

extern const VariantKernels kVariants_scalar;
extern const VariantKernels kVariants_x86_sse41;
extern const VariantKernels kVariants_x86_avx2;
extern const VariantKernels kVariants_x86_avx512bw;
extern const VariantKernels kVariants_arm_neon;

}  // namespace edge
