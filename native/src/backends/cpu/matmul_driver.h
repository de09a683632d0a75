// Spreads matmuls over the pool: a call is a list of weight matrices that share their activations,
// cut into units of a few strips. A unit runs all rows in blocks of 16, so that its strips come
// from memory once and from L2 for the later blocks.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

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

  // Strips of a unit, an even number: about kUnitBytes of weights, at least enough units to share
  // out; what gemm kernels take at once when there are rows for them.
  int64_t unit_strips(const Tensor& weight, int n_rows) const;

  // The weights that the run() after the next reads, in turn, for n_rows rows: run() and whoever
  // calls the pool with expected() lets threads that wait fetch the first of their bytes.
  void expect(std::initializer_list<const Tensor*> weights, int n_rows);
  std::span<const ReadAhead> expected() const { return expected_; }

 private:
  // y of args for rows [row0, row0 + n_rows) of `rows`; row0 is a multiple of kPanelRows.
  void run_int8(Format format, const Int8Rows& rows, int row0, int n_rows, MatmulArgs args) const;
  // a8x2: values and residuals are rows of one call, so that a tile is unpacked once for both; then
  // row r is the sum of rows 2r and 2r + 1.
  void run_int8_twice(Format format, const Int8Rows& rows, MatmulArgs args) const;
  void run_f32(Format format, const ActRows& act, MatmulArgs args) const;
  int64_t n_units(const Tensor& weight, int n_rows) const;
  // The memory that a thread reads first in run().
  ReadAhead first_reads(std::initializer_list<const Tensor*> weights, int n_rows, int thread) const;

  MatmulFn kernels_[16][2] = {};  // [format][kA8 or kF32]
  MatmulFn gemms_[16] = {};       // [format], kA8; null: panel by panel
  int n_threads_;
  std::vector<ReadAhead> expected_;  // by thread
};

}  // namespace edge
