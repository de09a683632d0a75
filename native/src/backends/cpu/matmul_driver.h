// Spreads matmuls over the pool: a call is a list of weight matrices that share their activations,
// cut into units of a few strips. A unit runs all rows in blocks of 16, so that its strips come
// from memory once and from L2 for the later blocks.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "backends/backend.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace edge {

class MatmulDriver {
 public:
  MatmulDriver(const KernelTable& kernels, int n_threads);

  // Strips [strip0, strip0 + n_strips) of `weight` times the rows of `act`; y points at the column
  // of strip0. Serial: called from inside units.
  void run_strips(const Tensor& weight, const ActRows& act, int64_t strip0, int64_t n_strips,
                  float* y, int64_t y_stride) const;

  struct Job {
    const Tensor* weight;
    float* y;
    int64_t y_stride;  // >= n_strips * 16
  };
  // All jobs in one parallel sweep.
  void run(std::initializer_list<Job> jobs, const ActRows& act) const;

  // Strips of a unit: about kUnitBytes of weights, at least enough units to share out; what gemm
  // kernels take at once when there are rows for them.
  int64_t unit_strips(const Tensor& weight, int n_rows) const;

 private:
  MatmulFn kernels_[16][2] = {};  // [format][act]
  MatmulFn gemms_[16][2] = {};    // [format][act]; null: panel by panel
  int n_threads_;
};

}  // namespace edge
