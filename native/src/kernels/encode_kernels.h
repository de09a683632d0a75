// The per-ISA part of the weight encoders: one strip of 16 rows. kernels/encode.h is the driver.
// Written once (kernels/generic/encode.inl.h); every ISA writes the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edge {

struct EncodeStripArgs {
  const float* weights = nullptr;     // first row of the strip, finite
  int64_t n_cols = 0;                 // also the stride of weights
  int n_rows = 0;                     // 1..16 rows exist, the rest of the strip is encoded as zeros
  const float* importance = nullptr;  // [n_cols padded to 32], 0..1, zero in the padding
  float* scratch = nullptr;           // [encode_scratch_floats(n_cols)]
  std::byte* out = nullptr;           // the strip
};
using EncodeStripFn = void (*)(const EncodeStripArgs& args);

// The weights transposed to [k][row], and one scale per row and group of 16.
constexpr int64_t encode_scratch_floats(int64_t n_cols) { return (n_cols + 31) / 32 * 32 * 17; }

struct EncodeKernels {
  EncodeStripFn e2_16;
  EncodeStripFn e3_32;
  EncodeStripFn e4_16;
  EncodeStripFn e4_32;
  EncodeStripFn e6_16;
  EncodeStripFn e8_32;
  EncodeStripFn k4_32;
  EncodeStripFn l4_32;
  EncodeStripFn l8_32;
  EncodeStripFn f16;
};

extern const EncodeKernels kEncode_scalar;
extern const EncodeKernels kEncode_x86_avx2;
extern const EncodeKernels kEncode_x86_avx512bw;
extern const EncodeKernels kEncode_arm_neon;

}  // namespace edge
