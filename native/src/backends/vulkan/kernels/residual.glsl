// x[i] += what `more` says, for the group's row, which begins at column `first` of all.
#include "sums.glsl"

void add_more(ResidualArgs more, float_ptr x, int64_t first, int64_t n) {
  if (IS_NULL(more.delta)) return;
  Column added = column_of(AT(more.delta, first), more.bias);
  const NormFactors factors = norm_factors(more.norm, n, added);
  row_ptr to = row_ptr(uint64_t(x));
  for (int64_t i = THREAD; i < n; i += kRowThreads) {
    AT(to, i).v = add(AT(to, i).v, normed(more.norm, factors, value_of(added, i), i));
  }
  SYNC();
}
