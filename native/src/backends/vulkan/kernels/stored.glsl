// The bytes of a head in its page.
#include "heads.glsl"

shared int levels[kMostHeadDim];
shared int group_top[kMostHeadDim];  // of a scale group, at its first channel
shared int group_positive[kMostHeadDim];

// The place of a token in its page, for one kv head.
struct Place {
  uint8_t_ptr page;
  KvPart head;
  int slot;
};
Place place_of() {
  Row_ptr row = AT(args.rows.rows, GROUP.y);
  const int number = row.v.slot / kPageTokens;
  const bool is_first = args.pages.has_first != 0 && number < kFirstTokens / kPageTokens;
  Place place;
  place.page = AT(AT(args.rows.tables, row.v.sequence).v.pages, number).v.bytes;
  place.head = head_of(args.pages, is_first, GROUP.x);
  place.slot = row.v.slot % kPageTokens;
  return place;
}

// f16 of the channels, `stride` halves apart.
void store_halves(uint16_t_ptr to, int stride) {
  for (int c = THREAD; c < args.heads.head_dim; c += kHeadThreads) {
    AT(to, c * stride).v = uint16_t(float_to_half(head[c]));
    if (magnitude_bits(head[c]) > 0x477fefff) args.flag.v = 1;  // 65520 and above
  }
}

// Levels of all scale groups, of `channels` each, and their f16 scales.
void level_head(int channels, int bits, uint16_t_ptr scales) {
  const int most = bits == 8 ? 127 : bits == 6 ? 31 : 7;
  const int least = bits == 4 ? -8 : -most;
  const int head_dim = args.heads.head_dim;
  for (int c = THREAD; c < head_dim; c += kHeadThreads) group_top[c] = group_positive[c] = 0;
  SYNC();
  for (int c = THREAD; c < head_dim; c += kHeadThreads) {
    const int first = c / channels * channels;
    atomicMax(group_top[first], magnitude_bits(head[c]));
    atomicMax(group_positive[first], floatBitsToInt(head[c]));
  }
  SYNC();
  for (int c = THREAD; c < head_dim; c += kHeadThreads) {
    const int group = c / channels, first = group * channels;
    const int top = group_top[first];
    const bool is_positive = least != -most && group_positive[first] == top;
    const float largest = float_of(top);
    const uint scale = float_to_half(div(is_positive ? largest : -largest, float(least)));
    if (top > 0x7f7fffff || (scale & 0x7c00u) == 0x7c00u) {
      if (c == first) args.flag.v = 1;
      continue;
    }
    if (c == first) AT(scales, group * kPageTokens).v = uint16_t(scale);
    const float step = half_to_float(scale);
    const float inverse = step == 0.0 ? 0.0 : div(1.0, step);
    const int level = to_int(mul(head[c], inverse));
    levels[c] = level < least ? least : level > most ? most : level;
  }
  SYNC();
}
