// The weight bytes of E2, E3, E4 and E6 tiles as quads (quant/tiles.h), on bytes16.h: quads 2j and
// 2j + 1. Unsigned, the zero point still in them; E4 by LUT 0 whatever the scale byte says.

EDGE_INLINE I load_64_bytes(const uint8_t* p) {
  return load_i(reinterpret_cast<const int32_t*>(p));
}

EDGE_INLINE void quads_e2(const uint8_t* pairs, int j, I& even, I& odd) {
  const I x = load_64_bytes(pairs + 64 * (j / 2));
  const I two = bit_and(j % 2 == 0 ? x : shr_i16(x, 4), set1_i(0x0F0F0F0F));
  even = shuffle_bytes(repeat_16_bytes(kLutE2Low), two);
  odd = shuffle_bytes(repeat_16_bytes(kLutE2High), two);
}

EDGE_INLINE void quads_e3(const uint8_t* nibbles, int j, I& even, I& odd) {
  const I lut = repeat_16_bytes(kLutE3);
  const I low = set1_i(0x0F0F0F0F);
  I x;
  if (j < 3) {
    x = load_64_bytes(nibbles + 64 * j);
  } else {
    const I bit0 = bit_and(shr_i16(load_64_bytes(nibbles), 3), set1_i(0x11111111));
    const I bit1 = bit_and(shr_i16(load_64_bytes(nibbles + 64), 2), set1_i(0x22222222));
    const I bit2 = bit_and(shr_i16(load_64_bytes(nibbles + 128), 1), set1_i(0x44444444));
    x = bit_or(bit0, bit_or(bit1, bit2));
  }
  even = shuffle_bytes(lut, bit_and(x, low));
  odd = shuffle_bytes(lut, bit_and(shr_i16(x, 4), low));
}

EDGE_INLINE void quads_e4(const uint8_t* nibbles, int j, I& even, I& odd) {
  const I lut = repeat_16_bytes(kLutE4);
  const I low = set1_i(0x0F0F0F0F);
  const I x = load_64_bytes(nibbles + 64 * j);
  even = shuffle_bytes(lut, bit_and(x, low));
  odd = shuffle_bytes(lut, bit_and(shr_i16(x, 4), low));
}

EDGE_INLINE void quads_e6(const uint8_t* nibbles, int j, I& even, I& odd) {
  const I low = set1_i(0x0F0F0F0F);
  const I high = set1_i(0x30303030);
  const I x = load_64_bytes(nibbles + 64 * j);
  const I h = load_64_bytes(nibbles + 256 + 64 * (j / 2));
  const I bits0 = j % 2 == 0 ? shl_i16(h, 4) : h;
  const I bits1 = j % 2 == 0 ? shl_i16(h, 2) : shr_i16(h, 2);
  even = bit_or(bit_and(x, low), bit_and(bits0, high));
  odd = bit_or(bit_and(shr_i16(x, 4), low), bit_and(bits1, high));
}
