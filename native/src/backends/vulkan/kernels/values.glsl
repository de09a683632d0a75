// Sums of values by the shares p_of[] of their positions: a thread is a column (gpu/attention.inl.h).
#include "scores.glsl"

PageTable table;  // of the group's sequence
KvPart part;      // of its kv head

uint8_t_ptr page_of(int t) { return AT(table.pages, slots[t] / kPageTokens).v.bytes; }
int place_in(int t) { return slots[t] % kPageTokens; }

void add_f16_values() {
  for (int c = THREAD; c < part.head_dim; c += kSegmentTokens) {
    float totals[kMostQueries];
    for (int j = 0; j < kQueries; ++j) totals[j] = 0.0;
    for (int t = asked.from; t < asked.to; ++t) {
      uint16_t_ptr values = AS(uint16_t, AT(page_of(t), part.values));
      const float v = half_to_float(uint(AT(values, place_in(t) * part.head_dim + c).v));
      for (int j = 0; j < kQueries; ++j) {
        if (j < asked.n && sees(j, t)) {
          totals[j] = fma_exact(p_of[j * kSegmentTokens + t], v, totals[j]);
        }
      }
    }
    for (int j = 0; j < asked.n; ++j) {
      if (sees_any(j)) AT(sums_of(j), 2 + c).v = totals[j];
    }
  }
}

int value_level(int t, int c) {
  const int place = place_in(t);
  const int at = place / 4 * part.value_row_bytes + value_byte(place);
  uint8_t_ptr row = AT(page_of(t), part.values + at);
  if (part.value_bits == 8) return int(AT(row, 4 * c).v) - 128;
  const int both = int(AT(row, 4 * (c / 32 * 16 + c % 16)).v);
  return (c % 32 < 16 ? both & 15 : both >> 4) - 8;
}

// Weights of a scale group as integers; the steps between them to steps[].
void make_weights(int group, inout float steps[kMostQueries]) {
  const int t = THREAD;
  float scale = 0.0;
  if (t >= asked.from && t < asked.to) {
    uint16_t_ptr scales = AS(uint16_t, AT(page_of(t), part.value_scales));
    scale = half_to_float(uint(AT(scales, group * kPageTokens + place_in(t)).v));
  }
  float w[kMostQueries], largest[kMostQueries];
  for (int j = 0; j < asked.n; ++j) {
    w[j] = sees(j, t) ? mul(p_of[j * kSegmentTokens + t], scale) : 0.0;
    largest[j] = float_of(magnitude_bits(w[j]));
  }
  group_max(largest);
  for (int j = 0; j < asked.n; ++j) {
    const bool is_zero = largest[j] < 7.88860905e-31;  // 2^-100
    weights[j * kSegmentTokens + t] = to_int(mul(w[j], is_zero ? 0.0 : div(32767.0, largest[j])));
    steps[j] = is_zero ? 0.0 : div(largest[j], 32767.0);
  }
}

// Exact sums, so that several threads may share the positions of a column.
void add_integer_values() {
  for (int begin = 0, group = 0; begin < part.head_dim; begin += part.value_channels, ++group) {
    float steps[kMostQueries];
    make_weights(group, steps);
    SYNC();
    const int n_cols = smaller(part.head_dim - begin, part.value_channels);
    const int n_parts = kSegmentTokens / n_cols;
    const int col = THREAD % n_cols, first = THREAD / n_cols;
    int totals[kMostQueries];
    for (int j = 0; j < kQueries; ++j) totals[j] = 0;
    for (int t = asked.from + first; first < n_parts && t < asked.to; t += n_parts) {
      const int level = value_level(t, begin + col);
      for (int j = 0; j < asked.n; ++j) totals[j] += weights[j * kSegmentTokens + t] * level;
    }
    for (int j = 0; j < asked.n; ++j) sums[j * kSegmentTokens + THREAD] = totals[j];
    SYNC();
    for (int j = 0; j < asked.n; ++j) {
      if (THREAD >= n_cols || !sees_any(j)) continue;
      int sum = 0;
      for (int i = 0; i < n_parts; ++i) sum += sums[j * kSegmentTokens + i * n_cols + col];
      AT(sums_of(j), 2 + begin + col).v = mul(float(sum), steps[j]);
    }
    SYNC();
  }
}
