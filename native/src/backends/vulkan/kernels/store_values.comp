#version 460
#include "stored.glsl"

void put_value(Place to) {
  const int head_dim = args.heads.head_dim;
  const int first = to.slot / 4 * to.head.value_row_bytes + value_byte(to.slot);
  uint8_t_ptr row = AT(to.page, to.head.values + first);
  for (int c = THREAD; c < head_dim; c += kHeadThreads) {
    if (to.head.value_bits == 8) {
      AT(row, 4 * c).v = uint8_t(levels[c] + 128);
    } else if (c % 32 < 16) {
      const int high = c + 16 < head_dim ? levels[c + 16] + 8 : 0;
      AT(row, 4 * (c / 32 * 16 + c % 16)).v = uint8_t(levels[c] + 8 + (high << 4));
    }
  }
}

void main() {
  load_head();
  Place to = place_of();
  if (to.head.value_bits == 16) {
    uint16_t_ptr values = AS(uint16_t, AT(to.page, to.head.values));
    store_halves(AT(values, to.slot * args.heads.head_dim), 1);
    return;
  }
  uint16_t_ptr scales = AT(AS(uint16_t, AT(to.page, to.head.value_scales)), to.slot);
  level_head(to.head.value_channels, to.head.value_bits, scales);
  put_value(to);
}
