// Products of a matrix with rows of activations: which kernel makes them.
#include "backends/gpu/launcher.h"

namespace edge::gpu {
namespace {

// Rows of activations that a kernel of matmul_a8 takes together.
int rows_at_once(int64_t n_rows) {
  return n_rows <= 2 ? static_cast<int>(n_rows) : n_rows <= 4 ? 4 : 8;
}

}  // namespace

void Launcher::multiply(const Tensor& weight, const ActRows& act, float* y, int64_t stride) {
  MatmulArgs args = {};
  args.w = matrix_of(weight);
  args.y = y;
  args.stride = stride;
  switch (weight.act) {
    case edge::Act::kA8:
      args.act = panels_of(act.a8);
      return multiply_a8(weight, args);
    case edge::Act::kF32:
      args.f = at(act.f);
      args.f_stride = act.n_cols_padded;
      return launch(kernel_of("matmul_f32_", weight), args, {weight.n_strips(), act.n_rows},
                    kMatmulF32Threads);
    case edge::Act::kA8x2: {
      const int64_t n = weight.n_strips() * kTileRows;
      args.act = panels_of(act.a8x2);
      args.y = take(Room::kParts, args.act.n_rows * n);
      args.stride = n;
      multiply_a8(weight, args);
      const AddPairsArgs pairs = {args.y, n, y, stride};
      return launch("add_pairs", pairs, {groups_of(n, kElementThreads), act.n_rows},
                    kElementThreads);
    }
  }
}

void Launcher::multiply_a8(const Tensor& weight, const MatmulArgs& args) {
  const int n = rows_at_once(args.act.n_rows);
  launch(kernel_of("matmul_a8_" + std::to_string(n) + '_', weight), args,
         {weight.n_strips(), groups_of(args.act.n_rows, n)}, kMatmulThreads);
}

}  // namespace edge::gpu
