// Encoding one strip of 16 rows. A row is a lane of vec16.h, so nothing is summed across lanes and
// the bytes are the same on every ISA. Sums are written as mul and add, not fma, which is slow
// where it is emulated.
//
// Per row and group, (1) try scales around amax / |extreme level| in both signs and with every LUT;
// with the nearest levels v the best scale is s = sum(h x v) / sum(h v^2) and it removes
// sum(h x v)^2 / sum(h v^2) of the error, h being the importance. (2) d_row = max |s| over the
// largest scale. (3) Around s / d_row try the integer scales of the format with every LUT and keep
// the smallest error. kExtremes are the |levels| that amax is tried on and kSteps how many scales
// to either side: three times as many change E4's error on Gaussian weights by less than 0.5 %.
//
// Included once per ISA inside its namespace, after vec16.h.

#include "kernels/generic/levels.inl.h"

// ---- the search

// The real-valued scale of one group that leaves the smallest error. x: [n][16], h: [n].
template <class Levels>
EDGE_INLINE V best_scale(const Levels& levels, const float* x, const float* h, int n) {
  const V inverse = inverse_of<Levels>(largest_of(x, n));
  ScaleFit best = {zero(), zero(), zero_i()};
  for (const float extreme : Levels::kExtremes) {
    for (const float sign : {1.0f, -1.0f}) {
      best = better_fit(levels, x, h, n, mul(inverse, set1(sign * extreme)), best);
    }
  }
  return best.scale;
}

struct GroupChoice {
  I scale;    // of the grid
  I lut;      // 0 .. kLuts - 1
  V inverse;  // kPositionScale / (d_row * scale), 0 where d_row is 0
};

// The best integer scale near `wanted` / d and its LUT. Ties: lower |scale|, then LUT 0.
template <class Levels>
EDGE_INLINE GroupChoice choose_group(const Levels& levels, const float* x, const float* h, int n,
                                     V wanted, V d) {
  const M is_zero = cmp_eq(d, zero());
  const V ratio = select(is_zero, zero(), div(wanted, d));
  using Grid = ScaleGrid<Levels>;
  const I below = shl(to_int(floor(mul(ratio, set1(1.0f / Grid::kUnit)))), Grid::kLogUnit);
  const I nearest = add(below, set1_i(Grid::kUnit / 2));
  GroupChoice best = {set1_i(Grid::kUnit / 2), zero_i(), zero()};
  V best_error = set1(0x1.fffffep+127f);
  for (int step = -Levels::kSteps; step <= Levels::kSteps; ++step) {
    const I moved = add(nearest, set1_i(Grid::kUnit * step));
    const I scale = max(min(moved, set1_i(Grid::kLargest)), set1_i(-Grid::kLargest));
    const I magnitude = max(scale, sub(zero_i(), scale));
    const V s = mul(d, to_float(scale));
    const V c = select(is_zero, zero(), div(set1(Levels::kPositionScale), s));
    V error[Levels::kLuts];
    for (int lut = 0; lut < Levels::kLuts; ++lut) error[lut] = zero();
    for (int k = 0; k < n; ++k) {
      const V w = load(x + 16 * k);
      const V weight = set1(h[k]);
      const I at = levels.position(w, c);
      for (int lut = 0; lut < Levels::kLuts; ++lut) {
        const V v = levels.level(levels.nearest(at, set1_i(lut)), set1_i(lut));
        const V rest = sub(w, mul(s, v));
        error[lut] = add(error[lut], mul(mul(weight, rest), rest));
      }
    }
    for (int lut = 0; lut < Levels::kLuts; ++lut) {
      const I best_magnitude = max(best.scale, sub(zero_i(), best.scale));
      const M is_tie = mask_and(cmp_eq(error[lut], best_error), cmp_lt(magnitude, best_magnitude));
      const M better = mask_or(cmp_lt(error[lut], best_error), is_tie);
      best_error = select(better, error[lut], best_error);
      best = {select(better, scale, best.scale), select(better, set1_i(lut), best.lut),
              select(better, c, best.inverse)};
    }
  }
  return best;
}

// ---- tiles

// Transposes the strip to x [n_cols_padded][16] with zeros where there is no weight.
EDGE_INLINE void transpose_strip(const EncodeStripArgs& args, int64_t n_cols_padded, float* x) {
  for (int64_t k0 = 0; k0 < n_cols_padded; k0 += 16) {
    for (int row = 0; row < 16; ++row) {
      const float* from = args.weights + row * args.n_cols;
      for (int64_t k = k0; k < k0 + 16; ++k) {
        x[16 * k + row] = row < args.n_rows && k < args.n_cols ? from[k] : 0.0f;
      }
    }
  }
}

// Multiplies every row by the power of two that brings its largest magnitude to [1, 2), so that no
// sum of squares over- or underflows; returns the inverses of the factors.
EDGE_INLINE V scale_rows(float* x, int64_t n_cols_padded) {
  V amax = zero();
  for (int64_t k = 0; k < n_cols_padded; ++k) amax = max(amax, abs(load(x + 16 * k)));
  const I exponent = shr(as_i(amax), 23);  // biased
  const I up = max(min(sub(set1_i(254), exponent), set1_i(253)), set1_i(1));
  const V factor = as_f(shl(up, 23));
  for (int64_t k = 0; k < n_cols_padded; ++k) store(x + 16 * k, mul(load(x + 16 * k), factor));
  return as_f(shl(sub(set1_i(254), up), 23));
}

// Four indices per row as the bytes of one word per row.
EDGE_INLINE I quad_word(const I* q) {
  return bit_or(bit_or(q[0], shl(q[1], 8)), bit_or(shl(q[2], 16), shl(q[3], 24)));
}
EDGE_INLINE void store_word(void* p, I x) { store_i(static_cast<int32_t*>(p), x); }

// q: [32] indices; the tiles of quant/tiles.h.
EDGE_INLINE void store_nibbles(uint8_t nibbles[4][64], const I* q) {
  for (int j = 0; j < 4; ++j) {
    I both[4];
    for (int c = 0; c < 4; ++c) {
      const I low = bit_and(q[8 * j + c], set1_i(15));
      both[c] = bit_or(low, shl(bit_and(q[8 * j + 4 + c], set1_i(15)), 4));
    }
    store_word(nibbles[j], quad_word(both));
  }
}
EDGE_INLINE void store_quads(uint8_t quads[8][64], const I* q) {
  for (int t = 0; t < 8; ++t) store_word(quads[t], quad_word(q + 4 * t));
}
EDGE_INLINE void store_pairs(uint8_t pairs[2][64], const I* q) {
  for (int half = 0; half < 2; ++half) {
    I four[4] = {zero_i(), zero_i(), zero_i(), zero_i()};
    for (int i = 0; i < 4; ++i) {
      for (int c = 0; c < 4; ++c) {
        four[c] = bit_or(four[c], shl(q[16 * half + 4 * i + c], 2 * i));
      }
    }
    store_word(pairs[half], quad_word(four));
  }
}
EDGE_INLINE void store_tile(TileE2_16* tile, const I* q, const I* sc) {
  store_u8(tile->sc[0], sc[0]);
  store_u8(tile->sc[1], sc[1]);
  store_pairs(tile->pairs, q);
}
EDGE_INLINE void store_tile(TileE3_32* tile, const I* q, const I* sc) {
  store_u8(tile->sc, sc[0]);
  for (int j = 0; j < 3; ++j) {
    I both[4];
    for (int c = 0; c < 4; ++c) {
      I nibble[2];
      for (int odd = 0; odd < 2; ++odd) {
        const I fourth = bit_and(shr(q[24 + 4 * odd + c], j), set1_i(1));
        nibble[odd] = bit_or(q[8 * j + 4 * odd + c], shl(fourth, 3));
      }
      both[c] = bit_or(nibble[0], shl(nibble[1], 4));
    }
    store_word(tile->nibbles[j], quad_word(both));
  }
}
EDGE_INLINE void store_tile(TileE4_16* tile, const I* q, const I* sc) {
  store_u8(tile->sc[0], sc[0]);
  store_u8(tile->sc[1], sc[1]);
  store_nibbles(tile->nibbles, q);
}
EDGE_INLINE void store_tile(TileE4_32* tile, const I* q, const I* sc) {
  store_u8(tile->sc, sc[0]);
  store_nibbles(tile->nibbles, q);
}
EDGE_INLINE void store_tile(TileE6_16* tile, const I* q, const I* sc) {
  store_u8(tile->sc[0], sc[0]);
  store_u8(tile->sc[1], sc[1]);
  store_nibbles(tile->nibbles, q);
  I high[32];
  for (int k = 0; k < 32; ++k) high[k] = shr(q[k], 4);
  store_pairs(tile->hi, high);
}
EDGE_INLINE void store_tile(TileE8_32* tile, const I* q, const I* sc) {
  store_u8(tile->sc, sc[0]);
  store_quads(tile->quads, q);
}

template <class Tile, class Levels, int kGroup>
void encode_strip(const EncodeStripArgs& args) {
  const Levels levels;
  const int64_t n_cols_padded = (args.n_cols + 31) / 32 * 32;
  float* const x = args.scratch;
  float* const wanted = x + 16 * n_cols_padded;
  transpose_strip(args, n_cols_padded, x);
  const V unscale = scale_rows(x, n_cols_padded);

  V largest = zero();
  for (int64_t k = 0; k < n_cols_padded; k += kGroup) {
    const V scale = best_scale(levels, x + 16 * k, args.importance + k, kGroup);
    store(wanted + 16 * (k / kGroup), scale);
    largest = max(largest, abs(scale));
  }
  const V d = div(largest, set1(ScaleGrid<Levels>::kLargest));
  store(reinterpret_cast<float*>(args.out), mul(d, unscale));

  Tile* tile = reinterpret_cast<Tile*>(args.out + kStripHeaderBytes);
  for (int64_t k0 = 0; k0 < n_cols_padded; k0 += 32, ++tile) {
    I q[32];
    I sc[2];
    for (int g = 0; g < 32 / kGroup; ++g) {
      const int64_t k = k0 + g * kGroup;
      const V scale = load(wanted + 16 * (k / kGroup));
      const GroupChoice choice =
          choose_group(levels, x + 16 * k, args.importance + k, kGroup, scale, d);
      sc[g] = bit_or(add(choice.scale, set1_i(ScaleGrid<Levels>::kLargest)), choice.lut);
      for (int i = 0; i < kGroup; ++i) {
        const I at = levels.position(load(x + 16 * (k + i)), choice.inverse);
        q[g * kGroup + i] = levels.nearest(at, choice.lut);
      }
    }
    store_tile(tile, q, sc);
  }
}

// ---- L4_32: f16 scales and zero points, no d_row to share

constexpr float kLinearLevels = 15.0f;
// Of the range of a group; zero points one to either side of what centres them are tried with each.
constexpr float kLinearShrinks[] = {1.0f, 0.95f, 0.9f, 0.85f, 0.8f};

// q - origin of the nearest of the levels 0 .. 15, as f32.
EDGE_INLINE V linear_level(V x, V inverse, V origin) {
  const V q = max(min(add(round_even(mul(x, inverse)), origin), set1(kLinearLevels)), zero());
  return sub(q, origin);
}

struct LinearGroup {
  V scale;   // >= 0
  V origin;  // zero point: an integer, 0 .. 15
};

// The scale and zero point that leave the smallest error, before the scale is rounded to f16: with
// the levels v of a try the best scale is s = sum(h x v) / sum(h v^2), and it removes s * sum(h x
// v). x: [32][16], h: [32].
EDGE_INLINE LinearGroup best_linear(const float* x, const float* h) {
  V lowest = zero();  // the range holds 0, so that 0 stays 0
  V highest = zero();
  for (int k = 0; k < 32; ++k) {
    lowest = min(lowest, load(x + 16 * k));
    highest = max(highest, load(x + 16 * k));
  }
  const V range = sub(highest, lowest);
  const M is_zero = cmp_lt(range, set1(0x1p-30f));  // no scale but 0 in f16
  const V per_level = select(is_zero, zero(), div(set1(kLinearLevels), range));
  LinearGroup best = {zero(), zero()};
  V best_gain = zero();
  for (const float shrink : kLinearShrinks) {
    const V inverse = mul(per_level, set1(1.0f / shrink));
    // Levels that the shrunk range leaves out are left out on both sides alike.
    const V cut = set1(kLinearLevels / 2 * (1.0f / shrink - 1.0f));
    const V centred = round_even(sub(neg(mul(lowest, inverse)), cut));
    for (const float step : {-1.0f, 0.0f, 1.0f}) {
      const V origin = max(min(add(centred, set1(step)), set1(kLinearLevels)), zero());
      V xv = zero();
      V vv = zero();
      for (int k = 0; k < 32; ++k) {
        const V w = load(x + 16 * k);
        const V v = linear_level(w, inverse, origin);
        const V hv = mul(set1(h[k]), v);
        xv = add(xv, mul(hv, w));
        vv = add(vv, mul(hv, v));
      }
      const V scale = select(cmp_gt(vv, zero()), div(xv, vv), zero());
      const V gain = mul(scale, xv);
      const M better = cmp_gt(gain, best_gain);
      best_gain = select(better, gain, best_gain);
      best = {select(better, scale, best.scale), select(better, origin, best.origin)};
    }
  }
  return best;
}

// Row scales of one, then tile by tile.
template <typename Tile, typename EncodeTile>
EDGE_INLINE void encode_unscaled_strip(const EncodeStripArgs& args, EncodeTile encode_tile) {
  const int64_t n_cols_padded = (args.n_cols + 31) / 32 * 32;
  float* const x = args.scratch;
  transpose_strip(args, n_cols_padded, x);
  float ones[16];
  store(ones, set1(1.0f));
  store(reinterpret_cast<float*>(args.out), load_n(ones, args.n_rows));
  auto* tile = reinterpret_cast<Tile*>(args.out + kStripHeaderBytes);
  for (int64_t k0 = 0; k0 < n_cols_padded; k0 += 32, ++tile) encode_tile(x, k0, tile);
}

void encode_strip_l4(const EncodeStripArgs& args) {
  encode_unscaled_strip<TileL4_32>(args, [&](const float* x, int64_t k0, TileL4_32* tile) {
    const LinearGroup group = best_linear(x + 16 * k0, args.importance + k0);
    store_f16(tile->s, min(group.scale, set1(65504.0f)));
    const V scale = load_f16(tile->s);
    const M is_zero = cmp_eq(scale, zero());
    const V inverse = select(is_zero, zero(), div(set1(1.0f), scale));
    const V origin = select(is_zero, zero(), group.origin);
    store_u8(tile->zero, to_int(origin));
    I q[32];
    for (int k = 0; k < 32; ++k) {
      q[k] = to_int(add(linear_level(load(x + 16 * (k0 + k)), inverse, origin), origin));
    }
    store_nibbles(tile->nibbles, q);
  });
}

// ---- L8_32: Q8_0's rule, scales amax / 127; importance could move nothing that is worth it

// Halves away from zero, as roundf.
EDGE_INLINE V round_away(V x) {
  const V magnitude = abs(x);
  const V even = round_even(magnitude);
  const V one_up = select(cmp_eq(sub(magnitude, even), set1(0.5f)), set1(1.0f), zero());
  const V away = add(even, one_up);
  return select(cmp_lt(x, zero()), neg(away), away);
}

void encode_strip_l8(const EncodeStripArgs& args) {
  encode_unscaled_strip<TileL8_32>(args, [](const float* x, int64_t k0, TileL8_32* tile) {
    const V scale = div(largest_of(x + 16 * k0, 32), set1(127.0f));
    store_f16(tile->s, scale);
    // Weights are divided by the scale as it was before it became an f16, as ggml does.
    const M is_zero = cmp_eq(load_f16(tile->s), zero());
    const V inverse = select(is_zero, zero(), div(set1(1.0f), scale));
    I q[32];
    for (int k = 0; k < 32; ++k) {
      const V level = round_away(mul(load(x + 16 * (k0 + k)), inverse));
      q[k] = add(to_int(level), set1_i(kL8Zero));
    }
    store_quads(tile->quads, q);
  });
}

#include "kernels/generic/encode_k4.inl.h"

void encode_strip_f16(const EncodeStripArgs& args) {
  encode_unscaled_strip<TileF16>(args, [](const float* x, int64_t k0, TileF16* tile) {
    for (int k = 0; k < 32; ++k) store_f16(tile->w[k], load(x + 16 * (k0 + k)));
  });
}

constexpr EncodeKernels kTable = {
    .e2_16 = encode_strip<TileE2_16, LevelsLut<LutE2>, 16>,
    .e3_32 = encode_strip<TileE3_32, LevelsLut<LutE3>, 32>,
    .e4_16 = encode_strip<TileE4_16, LevelsLut<LutE4>, 16>,
    .e4_32 = encode_strip<TileE4_32, LevelsLut<LutE4>, 32>,
    .e6_16 = encode_strip<TileE6_16, LevelsLinear<kE6Zero>, 16>,
    .e8_32 = encode_strip<TileE8_32, LevelsLinear<kE8Zero>, 32>,
    .k4_32 = encode_strip_k4,
    .l4_32 = encode_strip_l4,
    .l8_32 = encode_strip_l8,
    .f16 = encode_strip_f16,
};
