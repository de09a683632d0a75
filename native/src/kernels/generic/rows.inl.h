// Rows of any length in steps of 16 lanes. Included once per ISA inside its namespace, after
// vec16.h.
#pragma once

// i runs over 0..n in steps of 16; `lanes` of them are in the row.
#define EDGE_FOR_LANES(i, lanes, n) \
  for (int64_t i = 0, lanes = 0; i < (n) && (lanes = (n) - i < 16 ? (n) - i : 16, true); i += 16)

EDGE_INLINE V load_some(const float* p, int64_t lanes) {
  return lanes == 16 ? load(p) : load_n(p, static_cast<int>(lanes));
}
EDGE_INLINE void store_some(float* p, V x, int64_t lanes) {
  if (lanes == 16) {
    store(p, x);
  } else {
    store_n(p, x, static_cast<int>(lanes));
  }
}

// 1 / sqrt(mean of squares + eps).
EDGE_INLINE V norm_factor(V squares, int64_t n, float eps) {
  const V mean = set1(reduce_add(squares) / static_cast<float>(n) + eps);
  return div(set1(1.0f), sqrt(mean));
}
