// GPTQ's search inside one strip of 16 rows and one block of columns; kernels/gptq.h says what it
// computes. A row is a lane, so nothing is summed across lanes.
//
// Included once per ISA inside its namespace, after vec16.h.

#include "kernels/generic/levels.inl.h"

constexpr int kGptqSteps = 1;  // scales to either side; two change a matrix's loss by < 0.4 %

struct GptqChoice {
  I scale;  // of the grid
  I lut;
};

// What is known of one group while it is searched.
template <int kGroup>
struct GptqGroup {
  const float* target;  // [kGroup][16]
  const float* upper;   // row j of U at upper + j * stride, from the group's first column
  int64_t stride;
  float inverse_diagonal[kGroup];  // 1 / U_jj
  float weight[kGroup];            // 1 / U_jj^2
  V d;

  GptqGroup(const float* target_in, const float* upper_in, int64_t stride_in, V d_in)
      : target(target_in), upper(upper_in), stride(stride_in), d(d_in) {
    for (int j = 0; j < kGroup; ++j) {
      inverse_diagonal[j] = 1.0f / upper[j * stride + j];
      weight[j] = inverse_diagonal[j] * inverse_diagonal[j];
    }
  }
};

// Positions beyond any level, so that to_int() never overflows.
EDGE_INLINE V clamp_ratio(V x) { return max(min(x, set1(4096.0f)), set1(-4096.0f)); }

// The sweep inside the group with `n` scales of one LUT each, side by side for their latency:
// losses[n]. errors: scratch [n][kGroup] of lanes.
template <class Levels, int kGroup, int n>
EDGE_INLINE void group_losses(const Levels& levels, const GptqGroup<kGroup>& group, const V* steps,
                              const I* luts, V (*errors)[kGroup], V* losses) {
  V inverse[n];
  for (int c = 0; c < n; ++c) {
    inverse[c] = div(set1(Levels::kPositionScale), steps[c]);
    losses[c] = zero();
  }
  for (int j = 0; j < kGroup; ++j) {
    V rest[n];
    for (int c = 0; c < n; ++c) rest[c] = load(group.target + 16 * j);
    for (int i = 0; i < j; ++i) {
      const V u = set1(group.upper[i * group.stride + j]);
      for (int c = 0; c < n; ++c) rest[c] = sub(rest[c], mul(errors[c][i], u));
    }
    const V inverse_diagonal = set1(group.inverse_diagonal[j]);
    for (int c = 0; c < n; ++c) {
      const I at = levels.position(clamp_ratio(mul(rest[c], inverse[c])), set1(1.0f));
      const V v = levels.level(levels.nearest(at, luts[c]), luts[c]);
      errors[c][j] = mul(sub(rest[c], mul(steps[c], v)), inverse_diagonal);
      losses[c] = add(losses[c], mul(errors[c][j], errors[c][j]));
    }
  }
}

template <class Levels>
EDGE_INLINE I nearest_scale(V wanted, V d) {
  using Grid = ScaleGrid<Levels>;
  const V units = floor(mul(div(wanted, d), set1(1.0f / Grid::kUnit)));
  const V bounded = max(min(units, set1(64.0f)), set1(-64.0f));
  return add(shl(to_int(bounded), Grid::kLogUnit), set1_i(Grid::kUnit / 2));
}

// The choice with the least loss; `present` is one of the candidates where there is one. Of equal
// losses the first tried stays. Of more than two LUTs, the fit's and those next to it are tried.
template <class Levels, int kGroup>
GptqChoice best_choice(const Levels& levels, const GptqGroup<kGroup>& group,
                       const GptqChoice* present) {
  using Grid = ScaleGrid<Levels>;
  constexpr int kScales = 2 * kGptqSteps + 1;
  constexpr int kTriedLuts = Levels::kLuts < 3 ? Levels::kLuts : 3;
  constexpr int kCandidates = kScales * kTriedLuts;
  V errors[kCandidates][kGroup];
  GptqChoice best = {set1_i(Grid::kUnit / 2), zero_i()};
  V best_loss = set1(0x1.fffffep+127f);
  if (present != nullptr) {
    const V step = mul(group.d, to_float(present->scale));
    group_losses<Levels, kGroup, 1>(levels, group, &step, &present->lut, errors, &best_loss);
    best = *present;
  }
  const V inverse = inverse_of<Levels>(largest_of(group.target, kGroup));
  for (const float sign : {1.0f, -1.0f}) {
    ScaleFit fit = {zero(), zero(), zero_i()};
    for (const float extreme : Levels::kExtremes) {
      const V c = mul(inverse, set1(sign * extreme));
      fit = better_fit(levels, group.target, group.weight, kGroup, c, fit);
    }
    const I middle = nearest_scale<Levels>(fit.scale, group.d);
    const I first_lut = Levels::kLuts > 2 ? sub(fit.lut, set1_i(1)) : zero_i();
    I scales[kCandidates];
    I luts[kCandidates];
    V steps[kCandidates];
    V losses[kCandidates];
    for (int c = 0; c < kCandidates; ++c) {
      const I near = add(middle, set1_i(Grid::kUnit * (c % kScales - kGptqSteps)));
      scales[c] = max(min(near, set1_i(Grid::kLargest)), set1_i(-Grid::kLargest));
      const I lut = add(first_lut, set1_i(c / kScales));
      luts[c] = max(min(lut, set1_i(Levels::kLuts - 1)), zero_i());
      steps[c] = mul(group.d, to_float(scales[c]));
    }
    group_losses<Levels, kGroup, kCandidates>(levels, group, steps, luts, errors, losses);
    for (int c = 0; c < kCandidates; ++c) {
      const M better = cmp_lt(losses[c], best_loss);
      best_loss = select(better, losses[c], best_loss);
      best = {select(better, scales[c], best.scale), select(better, luts[c], best.lut)};
    }
  }
  return best;
}

// The levels of a choice, [kGroup] of lanes, and the errors over U_jj that the sweep leaves.
template <class Levels, int kGroup>
void settle(const Levels& levels, const GptqGroup<kGroup>& group, GptqChoice choice, I* level,
            V* errors) {
  const V step = mul(group.d, to_float(choice.scale));
  const V inverse = div(set1(Levels::kPositionScale), step);
  for (int j = 0; j < kGroup; ++j) {
    V rest = load(group.target + 16 * j);
    for (int i = 0; i < j; ++i) {
      rest = sub(rest, mul(errors[i], set1(group.upper[i * group.stride + j])));
    }
    const I at = levels.position(clamp_ratio(mul(rest, inverse)), set1(1.0f));
    const V v = levels.level(levels.nearest(at, choice.lut), choice.lut);
    level[j] = to_int(v);
    errors[j] = mul(sub(rest, mul(step, v)), set1(group.inverse_diagonal[j]));
  }
}

template <class Levels>
EDGE_INLINE I scale_byte_of(GptqChoice choice) {
  return bit_or(add(choice.scale, set1_i(128 - ScaleGrid<Levels>::kUnit / 2)), choice.lut);
}
template <class Levels>
EDGE_INLINE GptqChoice choice_of(I scale_byte) {
  constexpr int kUnit = ScaleGrid<Levels>::kUnit;
  const I scale = bit_and(scale_byte, set1_i(0xFF & ~(kUnit - 1)));
  return {add(scale, set1_i(kUnit / 2 - 128)), bit_and(scale_byte, set1_i(Levels::kLuts - 1))};
}

template <class Levels, int kGroup>
void gptq_sweep_strip(const GptqSweepArgs& args) {
  const Levels levels;
  const V d = load(args.d_row);
  const int64_t stride = args.n_cols;
  for (int k = 0; k < args.n_cols; k += kGroup) {
    const float* upper = args.upper + k * stride + k;
    const GptqGroup<kGroup> group(args.rest + 16 * k, upper, stride, d);
    const GptqChoice choice = best_choice(levels, group, nullptr);
    I level[kGroup];
    V errors[kGroup];
    settle(levels, group, choice, level, errors);
    store_i(args.scale_byte + k / kGroup * 16, scale_byte_of<Levels>(choice));
    for (int j = 0; j < kGroup; ++j) {
      store_i(args.level + 16 * (k + j), level[j]);
      store(args.moved + 16 * (k + j), errors[j]);
    }
    for (int later = kGroup; later < args.n_cols - k; ++later) {
      V rest = load(args.rest + 16 * (k + later));
      for (int j = 0; j < kGroup; ++j) {
        rest = sub(rest, mul(errors[j], set1(upper[j * stride + later])));
      }
      store(args.rest + 16 * (k + later), rest);
    }
  }
}

// x (H_gg) x^T for every lane.
template <int kGroup>
V quadratic(const V* x, const float* hessian, int64_t stride) {
  V sum = zero();
  for (int j = 0; j < kGroup; ++j) {
    V product = zero();
    for (int i = 0; i < kGroup; ++i) {
      product = add(product, mul(x[i], set1(hessian[i * stride + j])));
    }
    sum = add(sum, mul(product, x[j]));
  }
  return sum;
}

// Where the other columns' errors want the group: its target is weights + shift.
template <int kGroup>
void group_shift(const GptqDescendArgs& args, int k, V* shift) {
  const float* hessian = args.hessian + int64_t{k} * args.n_cols + k;
  const float* inverse = args.group_inverses + int64_t{k} * kGroup;
  V pull[kGroup];
  for (int j = 0; j < kGroup; ++j) {
    pull[j] = load(args.pulls + 16 * (k + j));
    for (int i = 0; i < kGroup; ++i) {
      const V error = load(args.errors + 16 * (k + i));
      pull[j] = sub(pull[j], mul(error, set1(hessian[int64_t{i} * args.n_cols + j])));
    }
  }
  for (int j = 0; j < kGroup; ++j) {
    shift[j] = zero();
    for (int i = 0; i < kGroup; ++i) {
      shift[j] = add(shift[j], mul(pull[i], set1(inverse[i * kGroup + j])));
    }
  }
}

// Tries one group again. change: [kGroup] of lanes, what is added to its errors.
template <class Levels, int kGroup>
void descend_group(const Levels& levels, const GptqDescendArgs& args, int k, V d, V* change) {
  const float* hessian = args.hessian + int64_t{k} * args.n_cols + k;
  V shift[kGroup];
  group_shift<kGroup>(args, k, shift);
  float target[16 * kGroup];
  for (int j = 0; j < kGroup; ++j) {
    store(target + 16 * j, add(load(args.weights + 16 * (k + j)), shift[j]));
  }
  int32_t* const scale_byte = args.scale_byte + k / kGroup * 16;
  const GptqChoice present = choice_of<Levels>(load_i(scale_byte));
  const GptqGroup<kGroup> group(target, args.group_uppers + int64_t{k} * kGroup, kGroup, d);
  const GptqChoice choice = best_choice(levels, group, &present);
  I level[kGroup];
  V scratch[kGroup];
  settle(levels, group, choice, level, scratch);

  const V step = mul(d, to_float(choice.scale));
  V before[kGroup];
  V after[kGroup];
  for (int j = 0; j < kGroup; ++j) {
    const V error = load(args.errors + 16 * (k + j));
    const V weight = load(args.weights + 16 * (k + j));
    before[j] = add(error, shift[j]);
    change[j] = sub(weight, mul(step, to_float(level[j])));
    after[j] = add(change[j], shift[j]);
    change[j] = sub(change[j], error);
  }
  const M keep = cmp_lt(quadratic<kGroup>(after, hessian, args.n_cols),
                        quadratic<kGroup>(before, hessian, args.n_cols));
  const I old_byte = load_i(scale_byte);
  store_i(scale_byte, select(keep, scale_byte_of<Levels>(choice), old_byte));
  for (int j = 0; j < kGroup; ++j) {
    int32_t* const stored = args.level + 16 * (k + j);
    store_i(stored, select(keep, level[j], load_i(stored)));
    change[j] = select(keep, change[j], zero());
  }
}

template <class Levels, int kGroup>
void gptq_descend_strip(const GptqDescendArgs& args) {
  const Levels levels;
  const V d = load(args.d_row);
  for (int k = 0; k < args.n_cols; k += kGroup) {
    V change[kGroup];
    descend_group<Levels, kGroup>(levels, args, k, d, change);
    for (int j = 0; j < kGroup; ++j) {
      store(args.errors + 16 * (k + j), add(load(args.errors + 16 * (k + j)), change[j]));
    }
    for (int later = k + kGroup; later < args.n_cols; ++later) {
      V pull = load(args.pulls + 16 * later);
      for (int j = 0; j < kGroup; ++j) {
        const float h = args.hessian[int64_t{k + j} * args.n_cols + later];
        pull = add(pull, mul(change[j], set1(h)));
      }
      store(args.pulls + 16 * later, pull);
    }
  }
}

template <class Levels, int kGroup>
constexpr GptqSearch kSearch = {gptq_sweep_strip<Levels, kGroup>,
                                gptq_descend_strip<Levels, kGroup>};

constexpr GptqKernels kGptqTable = {
    .e2_16 = kSearch<LevelsLut<LutE2>, 16>,
    .e3_32 = kSearch<LevelsLut<LutE3>, 32>,
    .e4_16 = kSearch<LevelsLut<LutE4>, 16>,
    .e4_32 = kSearch<LevelsLut<LutE4>, 32>,
    .e6_16 = kSearch<LevelsLinear<kE6Zero>, 16>,
    .e8_32 = kSearch<LevelsLinear<kE8Zero>, 32>,
};
