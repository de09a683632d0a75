#include "backends/gpu/experts.h"

#include <algorithm>

namespace edge::gpu {
namespace {

int64_t tile_rows(int64_t n) { return round_up(n, kTileRows); }

// Pairs of some rows, in the order of their experts.
class Pairs {
 public:
  Pairs(Launcher& launcher, const MoeShape& shape, const MoeRoutes& routes, int row0, int n_rows)
      : launcher_(launcher), row0_(row0), n_rows_(n_rows), n_used_(shape.n_used) {
    ids_ = launcher.at(routes.ids) + int64_t{row0} * n_used_;
    order_.ids = ids_;
    order_.n_pairs = count();
    order_.n_experts = shape.n_experts;
    order_.order = launcher.take<int32_t>(Room::kOrder, count());
  }
  int count() const { return n_rows_ * n_used_; }

  // y[pair] of `act`, whose rows are those of the step, or of the pairs.
  void multiply(const Tensor& stacked, int64_t n_rows_of_one, const ActRows& act, bool is_of_pairs,
                float* y, int64_t stride) {
    ExpertsArgs args = {};
    args.w = launcher_.matrix_of(stacked);
    const int64_t n_strips = groups_of(n_rows_of_one, kTileRows);
    args.expert_bytes = args.w.strip_bytes * n_strips;
    args.y = y;
    args.stride = stride;
    args.ids = ids_;
    args.row0 = is_of_pairs ? 0 : row0_;
    args.per_row = is_of_pairs ? 1 : n_used_;
    args.halves = 1;
    switch (stacked.act) {
      case edge::Act::kA8:
        args.act = launcher_.panels_of(act.a8);
        return multiply_a8(stacked, n_strips, args);
      case edge::Act::kF32:
        args.f = launcher_.at(act.f);
        args.f_stride = act.n_cols_padded;
        return launcher_.launch(Launcher::kernel_of("experts_f32_", stacked), args,
                                {n_strips, count()}, kMatmulF32Threads);
      case edge::Act::kA8x2: {
        const int64_t n = n_strips * kTileRows;
        args.halves = 2;
        args.act = launcher_.panels_of(act.a8x2);
        args.y = launcher_.take(Room::kParts, 2 * count() * n);
        args.stride = n;
        multiply_a8(stacked, n_strips, args);
        const AddPairsArgs sums = {args.y, n, y, stride};
        return launcher_.launch("add_pairs", sums, {groups_of(n, kElementThreads), count()},
                                kElementThreads);
      }
    }
  }

 private:
  void multiply_a8(const Tensor& stacked, int64_t n_strips, ExpertsArgs& args) {
    const ExpertsPlan plan =
        plan_experts(stacked, {n_strips, n_rows_, count(), order_.n_experts, args.halves},
                     launcher_.device(), launcher_.choice());
    order_as(plan);
    args.order = order_.order;
    args.parts = order_.parts;
    launcher_.launch(plan.product.kernel, args, plan.product.grid, plan.product.n_threads);
  }
  // Once for all matrices that take as many pairs together.
  void order_as(const ExpertsPlan& plan) {
    if (order_.part_pairs == plan.part_pairs) return;
    order_.part_pairs = plan.part_pairs;
    order_.n_parts = plan.n_parts;
    order_.parts = launcher_.take<ExpertPart>(Room::kExpertParts, order_.n_parts);
    launcher_.launch("order_pairs", order_, {}, kRowThreads);
  }

  Launcher& launcher_;
  const int row0_, n_rows_, n_used_;
  const int32_t* ids_ = nullptr;
  OrderPairsArgs order_ = {};
};

// The shared expert of all rows; null without one.
const float* run_shared(Launcher& launcher, const ActRows& act, const MoeTensors& tensors,
                        const MoeShape& shape, const MoeBuffers& buffers, int64_t stride) {
  if (shape.d_shared == 0) return nullptr;
  const int64_t width = tile_rows(shape.d_shared);
  float* gate = launcher.take(Room::kQueries, act.n_rows * width);
  float* up = launcher.take(Room::kKeys, act.n_rows * width);
  launcher.multiply(*tensors.shared.gate, act, gate, width);
  launcher.multiply(*tensors.shared.up, act, up, width);
  ActRows hidden = buffers.shared_hidden;
  hidden.set_cols(round_up(shape.d_shared, kTileK));
  hidden.set_rows(act.n_rows);
  activate(launcher, {.act = shape.act, .gate = gate, .up = up, .stride = width},
           needs_of({tensors.shared.down}), hidden);
  float* y = launcher.take(Room::kShared, act.n_rows * stride);
  launcher.multiply(*tensors.shared.down, hidden, y, stride);
  return y;
}

}  // namespace

void route_experts(Launcher& launcher, const ActRows& act, const MoeTensors& tensors,
                   const MoeShape& shape, const MoeRoutes& out) {
  RouteArgs args = {};
  args.logits = launcher.at(out.logits);
  args.shared = launcher.at(out.shared);
  args.ids = launcher.at(out.ids);
  args.weights = launcher.at(out.weights);
  args.flag = launcher.flag();
  args.stride = tile_rows(shape.n_experts);
  args.n_experts = shape.n_experts;
  args.n_used = shape.n_used;
  args.normalize = shape.normalize;
  args.has_shared_gate = tensors.shared_gate != nullptr;
  launcher.multiply(*tensors.router, act, args.logits, args.stride);
  if (args.has_shared_gate) {
    launcher.multiply(*tensors.shared_gate, act, args.shared, kTileRows);
  }
  launcher.launch("route_rows", args, {act.n_rows}, kRowThreads);
  const CountRoutesArgs count = {args.ids, launcher.at(out.n_routed), act.n_rows * shape.n_used,
                                 shape.n_experts};
  launcher.launch("count_routes", count, {}, kRowThreads);
}

void activate(Launcher& launcher, const Activation& from, ActNeeds needs, const ActRows& out) {
  ActivateArgs args = {};
  args.act = from.act;
  args.gate = from.gate;
  args.up = from.up;
  args.gate_bias = from.gate_bias;
  args.up_bias = from.up_bias;
  args.n_bias = from.n_bias;
  args.n_cols = from.stride;
  args.out = launcher.act_of(out, needs);
  args.flag = launcher.flag();
  launcher.launch("activate_rows", args, Launcher::block_grid(out), kRowThreads);
}

void run_experts(Launcher& launcher, const ActRows& act, const MoeTensors& tensors,
                 const MoeShape& shape, const MoeRoutes& routes, const MoeBuffers& buffers,
                 float* delta, int64_t stride) {
  const int64_t n_out = tile_rows(tensors.router->n_cols), width = tile_rows(shape.d_expert);
  const float* shared = run_shared(launcher, act, tensors, shape, buffers, n_out);
  const auto at_once =
      static_cast<int>(std::min<int64_t>(act.n_rows, buffers.max_pairs / shape.n_used));
  for (int row0 = 0; row0 < act.n_rows; row0 += at_once) {
    const int n_rows = std::min(at_once, act.n_rows - row0);
    Pairs pairs(launcher, shape, routes, row0, n_rows);
    float* gate = launcher.take(Room::kQueries, pairs.count() * width);
    float* up = launcher.take(Room::kKeys, pairs.count() * width);
    pairs.multiply(*tensors.experts.gate, shape.d_expert, act, false, gate, width);
    pairs.multiply(*tensors.experts.up, shape.d_expert, act, false, up, width);
    ActRows hidden = buffers.hidden;
    hidden.set_cols(round_up(shape.d_expert, kTileK));
    hidden.set_rows(pairs.count());
    activate(launcher, {.act = shape.act, .gate = gate, .up = up, .stride = width},
             needs_of({tensors.experts.down}), hidden);
    float* down = launcher.take(Room::kValues, pairs.count() * n_out);
    pairs.multiply(*tensors.experts.down, tensors.router->n_cols, hidden, true, down, n_out);
    SumExpertsArgs sum = {};
    sum.pairs = down;
    sum.weights = launcher.at(routes.weights) + int64_t{row0} * shape.n_used;
    sum.shared = shared == nullptr ? nullptr : shared + row0 * n_out;
    sum.shared_weights = launcher.at(routes.shared) + int64_t{row0} * kTileRows;
    sum.y = launcher.at(delta) + row0 * stride;
    sum.stride = n_out;
    sum.y_stride = stride;
    sum.n = n_out;
    sum.n_used = shape.n_used;
    launcher.launch("sum_experts", sum, {groups_of(n_out, kElementThreads), n_rows},
                    kElementThreads);
  }
}

}  // namespace edge::gpu
