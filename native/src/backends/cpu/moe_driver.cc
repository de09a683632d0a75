#include "backends/cpu/moe_driver.h"

#include <algorithm>
#include <atomic>
#include <numeric>

#include "backends/cpu/act_rows.h"
#include "backends/cpu/activate.h"

namespace edge {

namespace {

// Of a unit of down, for few rows (a quantization block) and for as many as a gemm takes.
constexpr int64_t kFewRowsStrips = 2;
constexpr int64_t kGemmStrips = 4;

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// The matrix [n_rows, n_cols] of one expert.
Tensor expert_of(const Tensor& stacked, int expert, int64_t n_rows) {
  Tensor matrix = stacked;
  matrix.n_rows = n_rows;
  matrix.n_bytes =
      strip_bytes(stacked.format, stacked.n_tiles()) * static_cast<size_t>(matrix.n_strips());
  matrix.data = stacked.data + matrix.n_bytes * static_cast<size_t>(expert);
  return matrix;
}

}  // namespace

MoeDriver::MoeDriver(const KernelTable& kernels, MatmulDriver& matmul, int n_threads)
    : kernels_(kernels),
      ops_(*kernels.elementwise),
      variants_(*kernels.variants),
      matmul_(matmul),
      n_threads_(n_threads),
      scratch_(n_threads),
      left_(static_cast<size_t>(n_threads)) {}

bool MoeDriver::route(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
                      MoeRoutes& out) {
  const int64_t stride = round_up(shape.n_experts, kTileRows);
  if (tensors.shared_gate != nullptr) {
    matmul_.run(
        {{tensors.router, out.logits, stride}, {tensors.shared_gate, out.shared, kTileRows}}, act);
  } else {
    matmul_.run({{tensors.router, out.logits, stride}}, act);
  }
  std::atomic<bool> is_finite{true};
  parallel_for(n_threads_, act.n_rows, [&](int64_t r, int thread) {
    float* logits = out.logits + r * stride;
    float* shared = out.shared + r * kTileRows;
    if (tensors.shared_gate == nullptr) shared[0] = 0;
    if (!ops_.is_finite_row(logits, shape.n_experts) || !ops_.is_finite_row(shared, 1)) {
      is_finite.store(false, std::memory_order_relaxed);
      std::fill_n(logits, shape.n_experts, 0.0f);
      shared[0] = 0;
    }
    variants_.softmax(logits, shape.n_experts);
    choose(logits, shape, left_[static_cast<size_t>(thread)], out.ids + r * shape.n_used,
           out.weights + r * shape.n_used);
    shared[1] = 0;
    variants_.softmax(shared, 2);  // sigmoid(g) is the first share of softmax(g, 0)
    if (tensors.shared_gate == nullptr) shared[0] = 1;
  });
  for (int64_t i = 0; i < int64_t{act.n_rows} * shape.n_used; ++i) ++out.n_routed[out.ids[i]];
  return is_finite;
}

void MoeDriver::choose(const float* probabilities, const MoeShape& shape, Floats& left,
                       int32_t* ids, float* weights) const {
  left.assign(probabilities, probabilities + shape.n_experts);
  for (int i = 0; i < shape.n_used; ++i) {
    *std::max_element(left.begin(), left.end()) = -1;  // of equals the first
  }
  for (int expert = 0, i = 0; i < shape.n_used; ++expert) {
    if (left[static_cast<size_t>(expert)] >= 0) continue;
    ids[i] = expert;
    weights[i++] = probabilities[expert];
  }
  if (shape.normalize) variants_.normalize(weights, shape.n_used);
}

bool MoeDriver::run(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
                    const MoeRoutes& routes, MoeBuffers& buffers, float* delta, int64_t stride) {
  const auto at_once =
      static_cast<int>(std::min<int64_t>(act.n_rows, buffers.max_pairs / shape.n_used));
  bool is_finite = true;
  for (int row0 = 0; row0 < act.n_rows; row0 += at_once) {
    const int n_rows = std::min(at_once, act.n_rows - row0);
    group(act, tensors, shape, routes, row0, n_rows, buffers);
    // Every row's last addend; with the last rows for all, so that its weights are read once.
    if (shape.d_shared > 0 && row0 + n_rows == act.n_rows) {
      add_shared(act, tensors, shape, routes, buffers);
    }
    is_finite &= run_gate_up(shape.act);
    run_down(row0, n_rows, delta, stride);
  }
  return is_finite;
}

void MoeDriver::group(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
                      const MoeRoutes& routes, int row0, int n_rows, MoeBuffers& buffers) {
  const int64_t pair0 = int64_t{row0} * shape.n_used;
  const int64_t n_pairs = int64_t{n_rows} * shape.n_used;
  pair_ends_.assign(static_cast<size_t>(shape.n_experts), 0);
  for (int64_t i = 0; i < n_pairs; ++i) ++pair_ends_[static_cast<size_t>(routes.ids[pair0 + i])];
  std::exclusive_scan(pair_ends_.begin(), pair_ends_.end(), pair_ends_.begin(), 0);
  pair_rows_.resize(static_cast<size_t>(n_pairs));
  pair_weights_.resize(static_cast<size_t>(n_pairs));
  for (int64_t i = 0; i < n_pairs; ++i) {
    const auto at = static_cast<size_t>(pair_ends_[static_cast<size_t>(routes.ids[pair0 + i])]++);
    pair_rows_[at] = static_cast<int32_t>(row0 + i / shape.n_used);
    pair_weights_[at] = routes.weights[pair0 + i];
  }
  ActRows gathered = buffers.gathered, hidden = buffers.hidden;
  gathered.set_cols(act.n_cols_padded);
  hidden.set_cols(round_up(shape.d_expert, kTileK));
  parts_.clear();
  int32_t begin = 0;
  for (int expert = 0; expert < shape.n_experts; ++expert) {
    const int32_t end = pair_ends_[static_cast<size_t>(expert)];
    if (end > begin) {
      Part part;
      part.n_rows = end - begin;
      part.gate = expert_of(*tensors.experts.gate, expert, shape.d_expert);
      part.up = expert_of(*tensors.experts.up, expert, shape.d_expert);
      part.down = expert_of(*tensors.experts.down, expert, tensors.router->n_cols);
      part.in = act.n_rows == 1 ? act : act_part(gathered, begin, part.n_rows);
      part.hidden = act_part(hidden, begin, part.n_rows);
      part.rows = pair_rows_.data() + begin;
      part.weights = pair_weights_.data() + begin;
      parts_.push_back(part);
    }
    begin = end;
  }
  if (act.n_rows > 1) {
    gather(act, needs_of({tensors.experts.gate, tensors.experts.up}));
  }
}

void MoeDriver::gather(const ActRows& act, ActNeeds needs) {
  parallel_for(n_threads_, static_cast<int64_t>(parts_.size()), [&](int64_t p, int) {
    Part& part = parts_[static_cast<size_t>(p)];
    for (int i = 0; i < part.n_rows; ++i) copy_act_row(act, part.rows[i], needs, part.in, i);
  });
}

void MoeDriver::add_shared(const ActRows& act, const MoeTensors& tensors, const MoeShape& shape,
                           const MoeRoutes& routes, MoeBuffers& buffers) {
  shared_rows_.resize(static_cast<size_t>(act.n_rows));
  std::iota(shared_rows_.begin(), shared_rows_.end(), 0);
  shared_weights_.clear();
  for (int r = 0; r < act.n_rows; ++r) shared_weights_.push_back(routes.shared[r * kTileRows]);
  ActRows hidden = buffers.shared_hidden;
  hidden.set_cols(round_up(shape.d_shared, kTileK));
  hidden.set_rows(act.n_rows);
  Part part;
  part.n_rows = act.n_rows;
  part.gate = *tensors.shared.gate;
  part.up = *tensors.shared.up;
  part.down = *tensors.shared.down;
  part.in = act;
  part.hidden = hidden;
  part.rows = shared_rows_.data();
  part.weights = shared_weights_.data();
  parts_.push_back(part);
}

bool MoeDriver::run_gate_up(FfnAct act) {
  int64_t n_units = 0, n_scratch = 0;
  for (Part& part : parts_) {
    part.first_unit = n_units;
    part.unit_strips = matmul_.unit_strips(part.gate, part.n_rows);
    const int64_t n_strips = part.hidden.n_cols_padded / kTileRows;
    n_units += (n_strips + part.unit_strips - 1) / part.unit_strips;
    n_scratch = std::max(n_scratch, 2 * part.n_rows * part.unit_strips * kTileRows);
  }
  scratch_.reserve(n_scratch);
  std::atomic<bool> is_finite{true};
  const auto run_unit = [&](int64_t unit, int thread) {
    const auto after =
        std::upper_bound(parts_.begin(), parts_.end(), unit,
                         [](int64_t value, const Part& part) { return value < part.first_unit; });
    Part& part = *std::prev(after);
    const int64_t strip0 = (unit - part.first_unit) * part.unit_strips;
    if (!run_gate_up_unit(part, strip0, act, scratch_.get(thread))) {
      is_finite.store(false, std::memory_order_relaxed);
    }
  };
  parallel_for(n_threads_, n_units, run_unit);
  return is_finite;
}

bool MoeDriver::run_gate_up_unit(Part& part, int64_t strip0, FfnAct act, float* scratch) const {
  const int64_t n_padded =
      std::min(part.unit_strips, part.hidden.n_cols_padded / kTileRows - strip0);
  const int64_t n_strips = std::min(n_padded, part.gate.n_strips() - strip0);
  const int64_t width = n_padded * kTileRows;
  const ActNeeds needs = needs_of({&part.down});
  float* g = scratch;
  float* u = scratch + part.n_rows * width;
  matmul_.run_strips(part.gate, part.in, strip0, n_strips, g, width);
  matmul_.run_strips(part.up, part.in, strip0, n_strips, u, width);
  bool is_finite = true;
  for (int i = 0; i < part.n_rows; ++i) {
    const int64_t column0 = strip0 * kTileRows;
    float* y = needs.f32 ? part.hidden.f + i * part.hidden.n_cols_padded + column0 : g + i * width;
    activate_row(kernels_, act, g + i * width, u + i * width, n_strips * kTileRows, y);
    std::fill(y + n_strips * kTileRows, y + width, 0.0f);
    is_finite &= write_act(ops_, y, width, i, column0, needs, part.hidden);
  }
  return is_finite;
}

void MoeDriver::run_down(int row0, int n_rows, float* delta, int64_t stride) {
  const int64_t n_strips = parts_.front().down.n_strips();
  const int64_t step = n_rows > kMaxKRows ? kGemmStrips : kFewRowsStrips;
  int most_rows = 0;
  for (const Part& part : parts_) most_rows = std::max(most_rows, part.n_rows);
  scratch_.reserve(most_rows * step * kTileRows);
  const auto run_unit = [&](int64_t unit, int thread) {
    const int64_t strip0 = unit * step;
    const int64_t n = std::min(step, n_strips - strip0);
    const int64_t width = n * kTileRows;
    float* y = delta + strip0 * kTileRows;
    for (int r = row0; r < row0 + n_rows; ++r) std::fill_n(y + r * stride, width, 0.0f);
    float* part_y = scratch_.get(thread);
    for (const Part& part : parts_) {
      matmul_.run_strips(part.down, part.hidden, strip0, n, part_y, width);
      for (int i = 0; i < part.n_rows; ++i) {
        variants_.add_scaled(part_y + i * width, part.weights[i], y + part.rows[i] * stride, width);
      }
    }
  };
  parallel_for(n_threads_, (n_strips + step - 1) / step, run_unit, matmul_.expected());
}

}  // namespace edge
