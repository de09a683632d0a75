// Products of a matrix with rows of activations.
#include "backends/gpu/fp8_args.h"
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

void Launcher::multiply_a8(const Tensor& weight, MatmulArgs args) {
  const MatmulPlan plan = plan_matmul(weight, args.act.n_rows, *device_, choice_);
  if (plan.is_fp8) args.act = fp8_of(args.act, halves_of(weight));
  launch(plan.kernel, args, plan.grid, plan.n_threads);
}

Panels Launcher::fp8_of(const Panels& act, int halves) {
  Fp8ActsArgs args = {.from = act, .to = act, .halves = halves};
  const int64_t n_blocks = act.n_rows * act.n_blocks;
  args.to.q = take<int8_t>(Room::kFp8, n_blocks * (kTileK + static_cast<int64_t>(sizeof(float))));
  args.to.d = reinterpret_cast<float*>(args.to.q + n_blocks * kTileK);
  args.to.bias = nullptr;
  const int64_t n_warps = groups_of(act.n_blocks, kFp8Cols / kTileK);
  launch("acts_to_fp8", args, {groups_of(n_warps, kRowThreads / kWarp), act.n_rows / halves},
         kRowThreads);
  return args.to;
}

}  // namespace edge::gpu
