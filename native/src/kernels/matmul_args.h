// MatmulArgs alone, for ISA objects: they include no STL (docs/KERNELS.md, "nothing inline leaks").
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace edge {

constexpr int kMaxKRows = 16;  // rows of one matmul call

// y[r][16 * strip + lane] = sum over k of W[16 * strip + lane][k] * a[r][k] for n_rows rows: up to
// kMaxKRows, one panel, in a matmul kernel; any number, panel after panel, in a gemm kernel.
struct MatmulArgs {
  const uint8_t* strips = nullptr;  // n_strips strips of n_tiles tiles each
  int64_t n_strips = 0;
  int64_t n_tiles = 0;
  // Activations of a panel of rows: block by block, so that what a tile meets lies together.
  const int8_t* q = nullptr;      // [n_tiles][n_rows][32]
  const float* d = nullptr;       // [n_tiles][n_rows]
  const int32_t* bias = nullptr;  // [n_tiles][n_rows][2], -64 * sum of 16 q
  const float* f = nullptr;       // [n_rows][32 * n_tiles]; Act::kF32 only
  int n_rows = 0;
  float* y = nullptr;
  int64_t y_stride = 0;  // >= 16 * n_strips
};
using MatmulFn = void (*)(const MatmulArgs&);

#define EDGE_MATMUL(isa, format, act, fn) void fn(const MatmulArgs&);
#define EDGE_GEMM(isa, format, fn) void fn(const MatmulArgs&);
#include "kernels/kernels.inc"
#undef EDGE_GEMM
#undef EDGE_MATMUL

}  // namespace edge
