// What the E formats can say, and the best real-valued scale of a group: shared by the encoders and
// by GPTQ's search. A row is a lane of vec16.h. Sums are written as mul and add, not fma, which is
// slow where it is emulated.
//
// Included once per ISA inside its namespace, after vec16.h.

// ---- levels: how a format maps x / s to an index and the index to the integer weight.
// position(x, c) with c = kPositionScale / s is shared by the LUTs; nearest(position, lut) is the
// index; level(index, lut) the integer weight as f32. lut has lanes of 0 or 1.

// The 16 unevenly spaced levels of E4. Position is floor(2 (x / s + 64)): midpoints are multiples
// of a half, so a binary search among 15 integers finds the nearest level.
struct LevelsE4 {
  static constexpr int kLuts = 2;
  static constexpr float kPositionScale = 2.0f;
  static constexpr float kExtremes[] = {42, 48, 53, 57, 61, 65, 71};
  static constexpr int kSteps = 2;

  Table levels = table_u8(kLutE4);
  Table after_1;  // after 1, 2, 3 steps of the search: the midpoint to compare with, less one
  Table after_2;
  Table after_3;
  I middle;

  LevelsE4() {
    uint8_t midpoints[16];
    for (int i = 0; i < 15; ++i) midpoints[i] = static_cast<uint8_t>(kLutE4[i] + kLutE4[i + 1] - 1);
    midpoints[15] = 255;
    uint8_t shifted[2][16];
    for (int i = 0; i < 16; ++i) {
      shifted[0][i] = midpoints[(i + 3) & 15];
      shifted[1][i] = midpoints[(i + 1) & 15];
    }
    after_1 = table_u8(shifted[0]);
    after_2 = table_u8(shifted[1]);
    after_3 = table_u8(midpoints);
    middle = set1_i(midpoints[7]);
  }

  EDGE_MEMBER_INLINE I position(V x, V c) const {
    return to_int(add(mul(x, c), set1(2.0f * kLutE4Zero - 0.5f)));
  }
  EDGE_MEMBER_INLINE I nearest(I at, I lut) const {
    at = sub(at, shl(lut, 2));  // LUT 1 is LUT 0 plus 2, that is 4 half-units
    I q = add_where(cmp_gt(at, middle), zero_i(), set1_i(8));
    q = add_where(cmp_gt(at, lookup(after_1, q)), q, set1_i(4));
    q = add_where(cmp_gt(at, lookup(after_2, q)), q, set1_i(2));
    return add_where(cmp_gt(at, lookup(after_3, q)), q, set1_i(1));
  }
  EDGE_MEMBER_INLINE V level(I q, I lut) const {
    const I shift = sub(shl(lut, 1), set1_i(kLutE4Zero));
    return to_float(add(lookup(levels, q), shift));
  }
};

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

// A real-valued scale and what it removes of the squared error of a group.
struct ScaleFit {
  V gain;
  V scale;
};

// With the nearest levels v at the trial scale kPositionScale / c, under every LUT, the best scale
// is sum(h x v) / sum(h v^2); replaces `best` where it removes more. x: [n][16], h: [n].
template <class Levels>
EDGE_INLINE ScaleFit better_fit(const Levels& levels, const float* x, const float* h, int n, V c,
                                ScaleFit best) {
  V xv[2] = {zero(), zero()};
  V vv[2] = {zero(), zero()};
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
    best = {select(better, gain, best.gain), select(better, scale, best.scale)};
  }
  return best;
}
