// Spreads a mixture of experts over the pool. Rows are gathered by expert, so that an expert's
// weights are read and unpacked once for all its rows; a step of one row reads the strips of its
// experts and nothing else. Units are strips of one expert (gate and up) and strips of all experts
// (down): threads are busy however few rows an expert has, and a row's sum over experts is always
// the same one, by ascending id.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/backend.h"
#include "backends/cpu/matmul_driver.h"
#include "backends/cpu/thread_scratch.h"
#include "base/thread_pool.h"
#include "kernels/elementwise.h"
#include "kernels/kernels.h"
#include "kernels/variants.h"

namespace edge {

class MoeDriver {
 public:
  // `kernels` and `matmul` must outlive the driver.
  MoeDriver(const KernelTable& kernels, MatmulDriver& matmul, int n_threads);

  // As Backend::moe_route() and moe_ffn(). False if a value is not finite; routes are then valid
  // ids, too.
  bool route(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape, MoeRoutes& out);
  bool run(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
           const MoeRoutes& routes, MoeBuffers& buffers, float* delta, int64_t stride);

 private:
  // One network and the rows that go through it.
  struct Part {
    Tensor gate, up, down;
    ActRows in, hidden;
    const int32_t* rows = nullptr;   // of the step
    const float* weights = nullptr;  // of its output, per row
    int n_rows = 0;
    int64_t first_unit = 0;  // of gate and up
    int64_t unit_strips = 0;
  };

  using Floats = std::vector<float>;

  void choose(const float* probabilities, const MoeShape& shape, Floats& left, int32_t* ids,
              float* weights) const;
  // Parts for rows [row0, row0 + n_rows) of the step; the pairs of a part stand together.
  void group(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
             const MoeRoutes& routes, int row0, int n_rows, MoeBuffers& buffers);
  void add_shared(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
                  const MoeRoutes& routes, MoeBuffers& buffers);
  void gather(const ActRows& act, ActNeeds needs);
  bool run_gate_up(FfnAct act);
  bool run_gate_up_unit(Part& part, int64_t strip0, FfnAct act, float* scratch) const;
  // delta of the rows that are summed from 0: [row0, row0 + n_rows).
  void run_down(int row0, int n_rows, float* delta, int64_t stride);

  const KernelTable& kernels_;
  const ElementwiseKernels& ops_;
  const VariantKernels& variants_;
  MatmulDriver& matmul_;
  int n_threads_;
  ThreadScratch scratch_;
  std::vector<Floats> left_;  // by thread
  std::vector<Part> parts_;
  std::vector<int32_t> pair_rows_, shared_rows_;  // rows of pairs, expert by expert
  std::vector<float> pair_weights_, shared_weights_;
  std::vector<int32_t> pair_ends_;  // by expert
};

}  // namespace edge
