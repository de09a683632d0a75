// Spreads the products of adapters over the pool: y += B (A x), row by row in f32. A first, into
// rows of rank columns, then B. Both go through the f32 matmul of F16 weights, whose sums are one
// chain whatever rows and strips a call has, and the product is added to y once; so a row's bits
// depend on nothing but the row, its adapter and W x.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "backends/backend.h"
#include "backends/cpu/matmul_driver.h"
#include "backends/cpu/thread_scratch.h"
#include "kernels/elementwise.h"

namespace edge {

class LoraDriver {
 public:
  // `ops` and `matmul` must outlive the driver.
  LoraDriver(const ElementwiseKernels& ops, const MatmulDriver& matmul, int n_threads);

  struct Product {
    LoraSpan rows;
    float* y;
    int64_t y_stride;
  };
  // Adds to products of `act` with up to three matrices; act.f is filled unless all spans are
  // empty.
  void add(std::initializer_list<Product> products, const ActRows& act);

  // The same in two halves. project() computes A x of all products and is called by itself;
  // add_strips() then adds strips [strip0, strip0 + n_strips), at most max_strips, of product
  // `index` to y, which points at the column of strip0, and is called from inside units.
  void project(std::initializer_list<LoraSpan> products, const ActRows& act, int64_t max_strips);
  void add_strips(size_t index, int64_t strip0, int64_t n_strips, float* y, int64_t y_stride,
                  int thread);

 private:
  struct Part {
    size_t product;  // its index
    LoraRows rows;
    ActRows hidden;  // A x, [rows.n_rows][rank rounded up to 32]
  };
  void add_part(const Part& part, int64_t strip0, int64_t n_strips, float* y, int64_t y_stride,
                int thread);

  const ElementwiseKernels& ops_;
  const MatmulDriver& matmul_;
  int n_threads_;
  std::vector<Part> parts_;    // of the last project()
  std::vector<float> hidden_;  // of all parts
  ThreadScratch scratch_;      // B A x of a unit
};

}  // namespace edge
