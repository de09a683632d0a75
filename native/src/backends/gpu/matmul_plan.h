// Which kernel makes a product of int8 activations, and with how many groups.
#pragma once

#include <string>

#include "backends/gpu/device.h"
#include "tensor/tensor.h"

namespace edge::gpu {

// What may be chosen from. All kernels but gemm_float give the same bits, so that is for speed.
struct MatmulChoice {
  // So many rows of activations and more go through matrix units, where there are some.
  // matmul_a8 reads the weights once for eight.
  int64_t matrices_from = 9;
  // Whether that may be as floats, whose sums have not the CPU's bits.
  bool allows_float = false;
};
// As EDGELLM_GEMM_FROM (a number above 0) and EDGELLM_FLOAT_PRODUCTS (1) say.
MatmulChoice matmul_choice();

struct MatmulPlan {
  std::string kernel;
  Grid grid;
  int n_threads;
  bool is_fp8 = false;  // takes activations of acts_to_fp8
};
// Rows of activations of a matrix: two where a value and what rounding left of it are two rows.
constexpr int halves_of(const Tensor& weight) { return weight.act == edge::Act::kA8x2 ? 2 : 1; }

// n_rows: of activations.
MatmulPlan plan_matmul(const Tensor& weight, int64_t n_rows, const Device& device,
                       const MatmulChoice& choice);

// Products of pairs of a row and an expert. Parts of one expert's pairs share a group.
struct ExpertsShape {
  int64_t n_strips;  // of one expert
  int n_rows;        // of the step
  int n_pairs;
  int n_experts;
  int halves;  // rows of activations of a pair
};
struct ExpertsPlan {
  MatmulPlan product;
  int part_pairs;
  int n_parts;  // at most
};
ExpertsPlan plan_experts(const Tensor& stacked, const ExpertsShape& shape, const Device& device,
                         const MatmulChoice& choice);

}  // namespace edge::gpu
