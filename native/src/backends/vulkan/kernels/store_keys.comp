#version 460
#include "stored.glsl"

void put_key(Place to) {
  const int head_dim = args.heads.head_dim;
  uint8_t_ptr keys = AT(to.page, to.head.keys + to.slot * 4);
  for (int c = THREAD; c < head_dim; c += kHeadThreads) {
    const int quad = c / 4;
    if (to.head.key_bits == 8) {
      AT(keys, quad * kPlaneBytes + c % 4).v = uint8_t(levels[c] + 128);
      continue;
    }
    const int plane = quad % 4;
    if (plane == 3) continue;  // in the top bits of the others
    const int last = quad / 4 * 16 + 12 + c % 4;
    const int top = last < head_dim ? (levels[last] + 32) >> 2 * plane & 3 : 0;
    AT(keys, (quad / 4 * 3 + plane) * kPlaneBytes + c % 4).v = uint8_t(levels[c] + 32 + (top << 6));
  }
}

void main() {
  load_head();
  turn_head();
  Place to = place_of();
  if (to.head.key_bits == 16) {
    store_halves(AT(AS(uint16_t, AT(to.page, to.head.keys)), to.slot), kPageTokens);
    return;
  }
  uint16_t_ptr scales = AT(AS(uint16_t, AT(to.page, to.head.key_scales)), to.slot);
  level_head(to.head.key_channels, to.head.key_bits, scales);
  put_key(to);
}
