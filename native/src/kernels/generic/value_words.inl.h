// Bytes of values (kernels/kv_format.h) as x86 multiplies them, on bytes16.h: pairs of i16.
#pragma once

struct Words {
  I even, odd;  // bytes of each 16 bits
};
EDGE_INLINE Words load_words(const uint8_t* p) {
  const I bytes = load_i(reinterpret_cast<const int32_t*>(p));
  return {bit_and(bytes, set1_i(0x00ff00ff)), shr_i16(bytes, 8)};
}
