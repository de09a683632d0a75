// What a router needs of a row: softmax, shares of a sum, and a weighted sum of rows.
//
// Part of elementwise.inl.h, after its helpers.

void row_normalize(float* x, int64_t n) {
  V sum = zero();
  EDGE_FOR_LANES(i, lanes, n) sum = add(sum, load_some(x + i, lanes));
  const V total = set1(reduce_add(sum));
  EDGE_FOR_LANES(i, lanes, n) store_some(x + i, div(load_some(x + i, lanes), total), lanes);
}

void row_softmax(float* x, int64_t n) {
  float largest = x[0];  // the same in any order
  for (int64_t i = 1; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  const V m = set1(largest);
  EDGE_FOR_LANES(i, lanes, n) store_some(x + i, exp(sub(load_some(x + i, lanes), m)), lanes);
  row_normalize(x, n);
}

void row_add_scaled(const float* y, float scale, float* x, int64_t n) {
  const V factor = set1(scale);
  EDGE_FOR_LANES(i, lanes, n) {
    store_some(x + i, fma(load_some(y + i, lanes), factor, load_some(x + i, lanes)), lanes);
  }
}
