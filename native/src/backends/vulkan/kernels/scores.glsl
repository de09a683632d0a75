// Scores of a few queries against the key of one position, which is read once for all of them
// (gpu/scores.inl.h, kernels/attention.h).
#include "asked.glsl"

// query_f as int8 with a scale for each of `channels`.
void quantize_queries(int channels) {
  const int head_dim = args.head_dim, n_groups = (head_dim + channels - 1) / channels;
  const int n_words = (head_dim + 3) / 4;
  for (int i = THREAD; i < asked.n * n_groups; i += kSegmentTokens) {
    const int at = i / n_groups * (kDim / 16) + i % n_groups;
    query_top[at] = query_sum[at] = 0;
  }
  SYNC();
  for (int i = THREAD; i < asked.n * head_dim; i += kSegmentTokens) {
    const int query = i / head_dim, c = i % head_dim;
    const int bits = magnitude_bits(query_f[query * kDim + c]);
    atomicMax(query_top[query * (kDim / 16) + c / channels], bits);
  }
  SYNC();
  for (int i = THREAD; i < asked.n * n_words; i += kSegmentTokens) {
    const int query = i / n_words, word = i % n_words;
    const int at = query * (kDim / 16) + 4 * word / channels;
    const int bits = query_top[at];
    if (bits > 0x7f7fffff) args.flag.v = 1;
    const float top = float_of(bits);
    const bool is_zero = top < 7.88860905e-31;  // 2^-100
    const float inverse = is_zero ? 0.0 : div(127.0, top);
    int packed = 0, sum = 0;
    for (int c = 4 * word; c < smaller(4 * word + 4, head_dim); ++c) {
      const int level = to_int(mul(query_f[query * kDim + c], inverse));
      const int q = level > 127 ? 127 : level < -127 ? -127 : level;
      packed |= (q & 255) << 8 * (c % 4);
      sum += q;
    }
    query_q[query * (kDim / 4) + word] = packed;
    atomicAdd(query_sum[at], sum);
    if (4 * word % channels == 0) query_scale[at] = is_zero ? 0.0 : div(top, 127.0);
  }
}

void score_f16(uint8_t_ptr page, KvPart head, int place, inout float scores[kMostQueries]) {
  uint16_t_ptr keys = AT(AS(uint16_t, AT(page, head.keys)), place);
  for (int c = 0; c < head.head_dim; ++c) {
    const float key = half_to_float(uint(AT(keys, c * kPageTokens).v));
    for (int j = 0; j < kQueries; ++j) {
      if (j < asked.n) scores[j] = fma_exact(query_f[j * kDim + c], key, scores[j]);
    }
  }
}

uint key_word(uint8_t_ptr keys, int plane) {
  return AS(uint32_t, AT(keys, plane * kPlaneBytes)).v;
}
// Key bytes of a quad, from 0.
uint key_quad(uint8_t_ptr keys, int bits, int quad) {
  if (bits == 8) return key_word(keys, quad) ^ 0x80808080u;
  const int plane = quad / 4 * 3;
  if (quad % 4 < 3) return key_word(keys, plane + quad % 4) & 0x3f3f3f3fu;
  return (key_word(keys, plane) >> 6 & 0x03030303u) | (key_word(keys, plane + 1) >> 4 & 0x0c0c0c0cu) |
         (key_word(keys, plane + 2) >> 2 & 0x30303030u);
}
int dot4(int a, int b, int c) {
  [[unroll]] for (int i = 0; i < 4; ++i) c += bitfieldExtract(a, 8 * i, 8) * bitfieldExtract(b, 8 * i, 8);
  return c;
}

void score_integer(uint8_t_ptr page, KvPart head, int place, inout float scores[kMostQueries]) {
  uint8_t_ptr keys = AT(page, head.keys + place * 4);
  uint16_t_ptr scales = AT(AS(uint16_t, AT(page, head.key_scales)), place);
  const int zero_point = head.key_bits == 8 ? 0 : 32;
  for (int begin = 0, group = 0; begin < head.head_dim; begin += head.key_channels, ++group) {
    const int end = smaller(begin + head.key_channels, head.head_dim);
    int dots[kMostQueries];
    for (int j = 0; j < kQueries; ++j) {
      dots[j] = j < asked.n ? -zero_point * query_sum[j * (kDim / 16) + group] : 0;
    }
    for (int quad = begin / 4; 4 * quad < end; ++quad) {
      const int key = int(key_quad(keys, head.key_bits, quad));
      for (int j = 0; j < kQueries; ++j) {
        if (j < asked.n) dots[j] = dot4(key, query_q[j * (kDim / 4) + quad], dots[j]);
      }
    }
    const float key_scale = half_to_float(uint(AT(scales, group * kPageTokens).v));
    for (int j = 0; j < kQueries; ++j) {
      if (j >= asked.n) continue;
      const float step = mul(query_scale[j * (kDim / 16) + group], key_scale);
      scores[j] = fma_exact(float(dots[j]), step, scores[j]);
    }
  }
}
