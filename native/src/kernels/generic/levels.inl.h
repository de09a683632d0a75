// What the E formats can say, and the best real-valued scale of a group: shared by the encoders and
// by GPTQ's search. A row is a lane of vec16.h. Sums are written as mul and add, not fma, which is
// slow where it is emulated.
//
// Included once per ISA inside its namespace, after vec16.h.

// ---- levels: how a format maps x / s to an index and the index to the integer weight.
// position(x, c) with c = kPositionScale / s is shared by the LUTs; nearest(position, lut) is the
// index; level(index, lut) the integer weight as f32. lut has lanes of 0 .. kLuts - 1.

// Unevenly spaced levels U[q] - z with zero points z = kZero - kZeroStep * lut. Position is
// floor(2 (x / s + kZero)): midpoints of levels are multiples of a half, so a binary search among
// kN - 1 integers finds the nearest level.
template <class Table16>
struct LevelsLut : Table16 {
  static constexpr int kN = Table16::kN;
  static constexpr float kPositionScale = 2.0f;

  Table levels = table_u8(Table16::lut());
  Table after[3];  // after 1, 2, 3 steps of the search: the midpoint to compare with, less one
  I middle;

  LevelsLut() {
    uint8_t midpoints[16] = {};
    for (int i = 0; i + 1 < kN; ++i) {
      midpoints[i] = static_cast<uint8_t>(Table16::lut()[i] + Table16::lut()[i + 1] - 1);
    }
    middle = set1_i(midpoints[kN / 2 - 1]);
    int step = kN / 4;
    for (Table& table : after) {
      uint8_t shifted[16] = {};
      for (int q = 0; step > 0 && q + step < kN; ++q) shifted[q] = midpoints[q + step - 1];
      table = table_u8(shifted);
      step /= 2;
    }
  }

  EDGE_MEMBER_INLINE I position(V x, V c) const {
    return to_int(add(mul(x, c), set1(2.0f * Table16::kZero - 0.5f)));
  }
  EDGE_MEMBER_INLINE I nearest(I at, I lut) const {
    at = sub(at, shl(lut, Table16::kLogZeroStep + 1));  // in half-units
    I q = add_where(cmp_gt(at, middle), zero_i(), set1_i(kN / 2));
    EDGE_UNROLL
    for (int i = 0, step = kN / 4; step > 0; ++i, step /= 2) {
      q = add_where(cmp_gt(at, lookup(after[i], q)), q, set1_i(step));
    }
    return q;
  }
  EDGE_MEMBER_INLINE V level(I q, I lut) const {
    const I shift = sub(shl(lut, Table16::kLogZeroStep), set1_i(Table16::kZero));
    return to_float(add(lookup(levels, q), shift));
  }
};

// What the format says of its scale byte (kLuts zero points, 1 << kLogZeroStep apart) and what the
// search tries.
struct LutE4 {
  static constexpr int kN = 16;
  static constexpr int kLuts = 2, kZero = kLutE4Zero, kLogZeroStep = 1;
  static constexpr float kExtremes[] = {42, 48, 53, 57, 61, 65, 71};
  static constexpr int kSteps = 2;
  static EDGE_MEMBER_INLINE const uint8_t* lut() { return kLutE4; }
};
static_assert(kLutE4Shift == 1 << LutE4::kLogZeroStep);
struct LutE3 {
  static constexpr int kN = 8;
  static constexpr int kLuts = kE3ZeroMask + 1, kZero = kE3Zero, kLogZeroStep = 2;
  static constexpr float kExtremes[] = {20, 24, 28, 32, 36, 40, 44};
  static constexpr int kSteps = 2;
  static EDGE_MEMBER_INLINE const uint8_t* lut() { return kLutE3; }
};
static_assert(kE3ZeroStep == 1 << LutE3::kLogZeroStep);
struct LutE2 {
  static constexpr int kN = 4;
  static constexpr int kLuts = kE2ZeroMask + 1, kZero = kE2Zero, kLogZeroStep = 1;
  static constexpr float kExtremes[] = {11, 14, 17, 20, 24};
  static constexpr int kSteps = 1;
  static EDGE_MEMBER_INLINE const uint8_t* lut() { return kLutE2Low; }
};
static_assert(kE2ZeroStep == 1 << LutE2::kLogZeroStep);

template <int kZero>  // levels -kZero .. kZero - 1
struct LevelsLinear {
  static constexpr int kLuts = 1;
  static constexpr float kPositionScale = 1.0f;
  static constexpr float kExtremes[] = {kZero * 0.90f, kZero * 0.94f, kZero * 0.97f, kZero * 1.00f,
                                        kZero * 1.03f};
  static constexpr int kSteps = 6;

  EDGE_MEMBER_INLINE I position(V x, V c) const { return to_int(mul(x, c)); }
  EDGE_MEMBER_INLINE I nearest(I at, I) const {
    return add(max(min(at, set1_i(kZero - 1)), set1_i(-kZero)), set1_i(kZero));
  }
  EDGE_MEMBER_INLINE V level(I q, I) const { return to_float(sub(q, set1_i(kZero))); }
};

// Scales of a format are kUnit apart and symmetric about zero (group_scale() of quant/tiles.h). At
// least one bit of a scale byte is not the scale's.
template <class Levels>
struct ScaleGrid {
  static constexpr int kUnit = Levels::kLuts < 2 ? 2 : Levels::kLuts;
  static constexpr int kLogUnit = kUnit == 2 ? 1 : kUnit == 4 ? 2 : 3;
  static constexpr int kLargest = 128 - kUnit / 2;
  static_assert(kUnit == 1 << kLogUnit);
};

// The largest |x| of every lane. x: [n][16].
EDGE_INLINE V largest_of(const float* x, int n) {
  V amax = zero();
  for (int k = 0; k < n; ++k) amax = max(amax, abs(load(x + 16 * k)));
  return amax;
}

// kPositionScale / amax, 0 where amax is.
template <class Levels>
EDGE_INLINE V inverse_of(V amax) {
  const M is_zero = cmp_lt(amax, set1(0x1p-60f));  // rows are scaled to about 1
  return select(is_zero, zero(), div(set1(Levels::kPositionScale), amax));
}

// A real-valued scale, with the LUT it was found with, and what it removes of the squared error of
// a group.
struct ScaleFit {
  V gain;
  V scale;
  I lut;
};

// With the nearest levels v at the trial scale kPositionScale / c, under every LUT, the best scale
// is sum(h x v) / sum(h v^2); replaces `best` where it removes more. x: [n][16], h: [n].
template <class Levels>
EDGE_INLINE ScaleFit better_fit(const Levels& levels, const float* x, const float* h, int n, V c,
                                ScaleFit best) {
  V xv[Levels::kLuts];
  V vv[Levels::kLuts];
  for (int lut = 0; lut < Levels::kLuts; ++lut) xv[lut] = vv[lut] = zero();
  for (int k = 0; k < n; ++k) {
    const V w = load(x + 16 * k);
    const V weight = set1(h[k]);
    const I at = levels.position(w, c);
    for (int lut = 0; lut < Levels::kLuts; ++lut) {
      const V v = levels.level(levels.nearest(at, set1_i(lut)), set1_i(lut));
      const V hv = mul(weight, v);
      xv[lut] = add(xv[lut], mul(hv, w));
      vv[lut] = add(vv[lut], mul(hv, v));
    }
  }
  for (int lut = 0; lut < Levels::kLuts; ++lut) {
    const V scale = select(cmp_gt(vv[lut], zero()), div(xv[lut], vv[lut]), zero());
    const V gain = mul(scale, xv[lut]);
    const M better = cmp_gt(gain, best.gain);
    best = {select(better, gain, best.gain), select(better, scale, best.scale),
            select(better, set1_i(lut), best.lut)};
  }
  return best;
}
