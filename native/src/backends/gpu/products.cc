// Products of a matrix with rows of activations.
#include "backends/gpu/launcher.h"

namespace edge::gpu {
void Launcher::multiply(const Tensor& weight, const ActRows& act, float* y, int64_t stride) {
  MatmulArgs args = {};
  args.w = matrix_of(weight);
  args.n_strips = weight.n_strips();
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
  const MatmulPlan plan = plan_matmul(weight, args.act.n_rows, *device_, matmul_choice_);
  launch(plan.kernel, args, plan.grid, plan.n_threads);
}

}  // namespace edge::gpu
