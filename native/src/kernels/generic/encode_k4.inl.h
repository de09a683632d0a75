// K4_32 for encode.inl.h: w = scale * q - min per group of 32, then 8 groups share d and dmin.
//
// Per row and group, scales around range / 15 are tried; with the nearest levels q the best scale
// and minimum are those of a weighted linear regression of x on q, the minimum not below 0: the
// search of ggml's Q4_K. d and dmin are the smallest f16 that reach the largest of 8 groups with
// 255, and q is taken again for what d * sc and dmin * min became.

constexpr float kAffineLevels = 15.0f;
// Levels of the range of a group: tries are kAffineStep apart.
constexpr float kFewestLevels = 14.0f, kMostLevels = 16.05f, kAffineStep = 0.1f;
constexpr float kLargestByte = 255.0f;

struct AffineGroup {
  V scale;  // >= 0
  V min;    // >= 0
};

EDGE_INLINE V affine_level(V x, V inverse, V minimum) {
  return max(min(round_even(mul(add(x, minimum), inverse)), set1(kAffineLevels)), zero());
}

// x: [32][16], h: [32].
EDGE_INLINE AffineGroup best_affine(const float* x, const float* h) {
  V lowest = zero();
  V highest = load(x);
  V sum_h = zero();
  V sum_x = zero();
  for (int k = 0; k < 32; ++k) {
    const V w = load(x + 16 * k);
    lowest = min(lowest, w);
    highest = max(highest, w);
    sum_h = add(sum_h, set1(h[k]));
    sum_x = add(sum_x, mul(set1(h[k]), w));
  }
  const V range = sub(highest, lowest);
  const V per_range = select(cmp_lt(range, set1(0x1p-30f)), zero(), div(set1(1.0f), range));
  // One value for all: the best of them that is not positive.
  const M is_below = cmp_lt(sum_x, zero());
  const V mean = select(is_below, div(sum_x, sum_h), zero());
  AffineGroup best = {zero(), neg(mean)};
  V best_gain = mul(mean, sum_x);
  for (float n_levels = kFewestLevels; n_levels < kMostLevels; n_levels += kAffineStep) {
    const V inverse = mul(per_range, set1(n_levels));
    V sum_q = zero();
    V sum_qq = zero();
    V sum_qx = zero();
    for (int k = 0; k < 32; ++k) {
      const V w = load(x + 16 * k);
      const V q = affine_level(w, inverse, neg(lowest));
      const V hq = mul(set1(h[k]), q);
      sum_q = add(sum_q, hq);
      sum_qq = add(sum_qq, mul(hq, q));
      sum_qx = add(sum_qx, mul(hq, w));
    }
    const V all = mul(sum_h, sum_qq);
    const V spread = sub(all, mul(sum_q, sum_q));
    const V offset = div(sub(mul(sum_qq, sum_x), mul(sum_q, sum_qx)), spread);
    // Levels that are all the same, or a positive offset: a line through zero.
    const M is_line = mask_and(cmp_gt(spread, mul(all, set1(0x1p-16f))), cmp_lt(offset, zero()));
    const V sloped = div(sub(mul(sum_h, sum_qx), mul(sum_q, sum_x)), spread);
    const V through_zero = select(cmp_gt(sum_qq, zero()), div(sum_qx, sum_qq), zero());
    const V scale = max(select(is_line, sloped, through_zero), zero());
    const V add_min = select(is_line, offset, zero());
    const V gain = add(mul(scale, sum_qx), mul(add_min, sum_x));
    const M better = cmp_gt(gain, best_gain);
    best_gain = select(better, gain, best_gain);
    best = {select(better, scale, best.scale), select(better, neg(add_min), best.min)};
  }
  return best;
}

// Writes the smallest halves (nearly) whose 255-fold reaches `largest`, or 0; returns them.
EDGE_INLINE V store_unit(uint16_t* halves, V largest) {
  store_f16(halves, mul(largest, set1(1.0f / kLargestByte)));
  const V nearest = load_f16(halves);
  const M is_short = cmp_lt(mul(nearest, set1(kLargestByte)), largest);
  const V step = max(mul(nearest, set1(0x1p-10f)), set1(0x1p-24f));
  store_f16(halves, select(is_short, add(nearest, step), nearest));
  return load_f16(halves);
}

// Writes value / unit as bytes; returns what they stand for.
EDGE_INLINE V store_multiple(uint8_t* bytes, V value, V unit) {
  const V ratio = select(cmp_eq(unit, zero()), zero(), div(value, unit));
  const V byte = min(round_even(ratio), set1(kLargestByte));
  store_u8(bytes, to_int(byte));
  return mul(unit, byte);
}

EDGE_INLINE void encode_tile_k4(const float* x, V scale, V minimum, V d, V dmin, TileK4_32* tile) {
  const V s = store_multiple(tile->sc, scale, d);
  const V m = store_multiple(tile->min, minimum, dmin);
  const V inverse = select(cmp_eq(s, zero()), zero(), div(set1(1.0f), s));
  I q[32];
  for (int k = 0; k < 32; ++k) q[k] = to_int(affine_level(load(x + 16 * k), inverse, m));
  store_nibbles(tile->nibbles, q);
}

void encode_strip_k4(const EncodeStripArgs& args) {
  const int64_t n_tiles = (args.n_cols + 31) / 32;
  float* const x = args.scratch;
  float* const wanted = x + 16 * 32 * n_tiles;  // [n_tiles][scale, minimum][16]
  transpose_strip(args, 32 * n_tiles, x);
  float ones[16];
  store(ones, set1(1.0f));
  store(reinterpret_cast<float*>(args.out), load_n(ones, args.n_rows));
  auto* head = reinterpret_cast<HeadK4_32*>(args.out + kStripHeaderBytes);
  auto* tile = reinterpret_cast<TileK4_32*>(args.out + tiles_offset(sizeof(HeadK4_32), n_tiles));
  for (int64_t first = 0; first < n_tiles; first += kHeadTiles, ++head) {
    const int64_t end = first + kHeadTiles < n_tiles ? first + kHeadTiles : n_tiles;
    V largest_scale = zero();
    V largest_min = zero();
    for (int64_t i = first; i < end; ++i) {
      const AffineGroup group = best_affine(x + 16 * 32 * i, args.importance + 32 * i);
      store(wanted + 32 * i, group.scale);
      store(wanted + 32 * i + 16, group.min);
      largest_scale = max(largest_scale, group.scale);
      largest_min = max(largest_min, group.min);
    }
    const V d = store_unit(head->d, largest_scale);
    const V dmin = store_unit(head->dmin, largest_min);
    for (int64_t i = first; i < end; ++i, ++tile) {
      encode_tile_k4(x + 16 * 32 * i, load(wanted + 32 * i), load(wanted + 32 * i + 16), d, dmin,
                     tile);
    }
  }
}
