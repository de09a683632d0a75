// 16 virtual lanes in plain C++: the definition of every vec16.h. The others must equal it bit for
// bit on finite input and infinities (NaN payloads are out of scope). docs/KERNELS.md lists the
// operations. Knows nothing of kernels; includes no STL, so ISA objects define no weak symbol.
#pragma once

#include <stdint.h>
#include <string.h>

#include "base/fma.h"
#include "base/half.h"
#include "base/inline.h"
#include "kernels/scalar/lane.h"

namespace edge::scalar {

struct V {  // 16 f32
  float v[16];
};
struct I {  // 16 i32
  int32_t v[16];
};
struct M {  // 16 lane masks, 0 or -1
  int32_t v[16];
};

// EXPR is the value of lane l.
#define EDGE_LANES(Type, EXPR)                  \
  Type r;                                       \
  for (int l = 0; l < 16; ++l) r.v[l] = (EXPR); \
  return r

// ---- memory

EDGE_INLINE V load(const float* p) {
  V r;
  memcpy(r.v, p, sizeof r.v);
  return r;
}
EDGE_INLINE void store(float* p, V x) { memcpy(p, x.v, sizeof x.v); }
// First n lanes (0..16), the rest zero; touches nothing past p[n - 1].
EDGE_INLINE V load_n(const float* p, int n) { EDGE_LANES(V, l < n ? p[l] : 0.0f); }
EDGE_INLINE void store_n(float* p, V x, int n) {
  for (int l = 0; l < n; ++l) p[l] = x.v[l];
}
EDGE_INLINE I load_i(const int32_t* p) {
  I r;
  memcpy(r.v, p, sizeof r.v);
  return r;
}
EDGE_INLINE void store_i(int32_t* p, I x) { memcpy(p, x.v, sizeof x.v); }
EDGE_INLINE I load_u8(const uint8_t* p) { EDGE_LANES(I, p[l]); }
EDGE_INLINE I load_i8(const int8_t* p) { EDGE_LANES(I, p[l]); }
// Lanes must be in -128..127 (i8), 0..255 (u8) or -32768..32767 (i16).
EDGE_INLINE void store_i8(int8_t* p, I x) {
  for (int l = 0; l < 16; ++l) p[l] = static_cast<int8_t>(x.v[l]);
}
EDGE_INLINE void store_u8(uint8_t* p, I x) {
  for (int l = 0; l < 16; ++l) p[l] = static_cast<uint8_t>(x.v[l]);
}
EDGE_INLINE void store_i16(int16_t* p, I x) {
  for (int l = 0; l < 16; ++l) p[l] = static_cast<int16_t>(x.v[l]);
}
EDGE_INLINE V load_f16(const uint16_t* p) { EDGE_LANES(V, half_to_float(p[l])); }
EDGE_INLINE void store_f16(uint16_t* p, V x) {
  for (int l = 0; l < 16; ++l) p[l] = float_to_half(x.v[l]);
}

EDGE_INLINE V set1(float x) { EDGE_LANES(V, x); }
EDGE_INLINE V zero() { return set1(0.0f); }
EDGE_INLINE I set1_i(int32_t x) { EDGE_LANES(I, x); }
EDGE_INLINE I zero_i() { return set1_i(0); }

// ---- f32

EDGE_INLINE V add(V a, V b) { EDGE_LANES(V, a.v[l] + b.v[l]); }
EDGE_INLINE V sub(V a, V b) { EDGE_LANES(V, a.v[l] - b.v[l]); }
EDGE_INLINE V mul(V a, V b) { EDGE_LANES(V, a.v[l] * b.v[l]); }
EDGE_INLINE V div(V a, V b) { EDGE_LANES(V, a.v[l] / b.v[l]); }
EDGE_INLINE V sqrt(V a) { EDGE_LANES(V, __builtin_sqrtf(a.v[l])); }
EDGE_INLINE V fma(V a, V b, V c) { EDGE_LANES(V, fma_exact(a.v[l], b.v[l], c.v[l])); }
EDGE_INLINE V neg(V a) { EDGE_LANES(V, lane_float(lane_bits(a.v[l]) ^ 0x80000000u)); }
EDGE_INLINE V abs(V a) { EDGE_LANES(V, lane_float(lane_bits(a.v[l]) & 0x7fffffffu)); }
EDGE_INLINE V min(V a, V b) { EDGE_LANES(V, a.v[l] < b.v[l] ? a.v[l] : b.v[l]); }
EDGE_INLINE V max(V a, V b) { EDGE_LANES(V, a.v[l] > b.v[l] ? a.v[l] : b.v[l]); }
EDGE_INLINE V floor(V a) { EDGE_LANES(V, lane_floor(a.v[l])); }
EDGE_INLINE V round_even(V a) { EDGE_LANES(V, lane_round_even(a.v[l])); }
EDGE_INLINE M cmp_lt(V a, V b) { EDGE_LANES(M, a.v[l] < b.v[l] ? -1 : 0); }
EDGE_INLINE M cmp_le(V a, V b) { EDGE_LANES(M, a.v[l] <= b.v[l] ? -1 : 0); }
EDGE_INLINE M cmp_gt(V a, V b) { EDGE_LANES(M, a.v[l] > b.v[l] ? -1 : 0); }
EDGE_INLINE M cmp_ge(V a, V b) { EDGE_LANES(M, a.v[l] >= b.v[l] ? -1 : 0); }
EDGE_INLINE M cmp_eq(V a, V b) { EDGE_LANES(M, a.v[l] == b.v[l] ? -1 : 0); }

// ---- i32, wrapping

EDGE_INLINE I as_i(V a) { EDGE_LANES(I, static_cast<int32_t>(lane_bits(a.v[l]))); }
EDGE_INLINE V as_f(I a) { EDGE_LANES(V, lane_float(static_cast<uint32_t>(a.v[l]))); }
// To nearest even, both ways; out of range and NaN give INT32_MIN.
EDGE_INLINE V to_float(I a) { EDGE_LANES(V, static_cast<float>(a.v[l])); }
EDGE_INLINE I to_int(V a) { EDGE_LANES(I, lane_to_int(a.v[l])); }

#define EDGE_WRAP(op) \
  static_cast<int32_t>(static_cast<uint32_t>(a.v[l]) op static_cast<uint32_t>(b.v[l]))
EDGE_INLINE I add(I a, I b) { EDGE_LANES(I, EDGE_WRAP(+)); }
EDGE_INLINE I sub(I a, I b) { EDGE_LANES(I, EDGE_WRAP(-)); }
EDGE_INLINE I mul(I a, I b) { EDGE_LANES(I, EDGE_WRAP(*)); }
EDGE_INLINE I bit_and(I a, I b) { EDGE_LANES(I, EDGE_WRAP(&)); }
EDGE_INLINE I bit_or(I a, I b) { EDGE_LANES(I, EDGE_WRAP(|)); }
EDGE_INLINE I bit_xor(I a, I b) { EDGE_LANES(I, EDGE_WRAP(^)); }
#undef EDGE_WRAP
EDGE_INLINE I min(I a, I b) { EDGE_LANES(I, a.v[l] < b.v[l] ? a.v[l] : b.v[l]); }
EDGE_INLINE I max(I a, I b) { EDGE_LANES(I, a.v[l] > b.v[l] ? a.v[l] : b.v[l]); }
// Shifts by 0..31: left, right with zeros, right with the sign.
EDGE_INLINE I shl(I a, int n) {
  EDGE_LANES(I, static_cast<int32_t>(static_cast<uint32_t>(a.v[l]) << n));
}
EDGE_INLINE I shr(I a, int n) {
  EDGE_LANES(I, static_cast<int32_t>(static_cast<uint32_t>(a.v[l]) >> n));
}
EDGE_INLINE I sar(I a, int n) { EDGE_LANES(I, a.v[l] >> n); }
EDGE_INLINE M cmp_lt(I a, I b) { EDGE_LANES(M, a.v[l] < b.v[l] ? -1 : 0); }
EDGE_INLINE M cmp_gt(I a, I b) { EDGE_LANES(M, a.v[l] > b.v[l] ? -1 : 0); }
EDGE_INLINE M cmp_eq(I a, I b) { EDGE_LANES(M, a.v[l] == b.v[l] ? -1 : 0); }

// ---- masks: select(m, a, b) is a where m, else b

EDGE_INLINE V select(M m, V a, V b) { EDGE_LANES(V, m.v[l] ? a.v[l] : b.v[l]); }
EDGE_INLINE I select(M m, I a, I b) { EDGE_LANES(I, m.v[l] ? a.v[l] : b.v[l]); }
EDGE_INLINE M mask_and(M a, M b) { EDGE_LANES(M, a.v[l] & b.v[l]); }
EDGE_INLINE M mask_or(M a, M b) { EDGE_LANES(M, a.v[l] | b.v[l]); }
EDGE_INLINE M mask_not(M a) { EDGE_LANES(M, ~a.v[l]); }
// Bit l is lane l.
EDGE_INLINE uint32_t mask_bits(M a) {
  uint32_t bits = 0;
  for (int l = 0; l < 16; ++l) bits |= (a.v[l] ? 1u : 0u) << l;
  return bits;
}
EDGE_INLINE bool any(M a) { return mask_bits(a) != 0; }
#undef EDGE_LANES

// a + b where m, else a.
EDGE_INLINE I add_where(M m, I a, I b) { return select(m, add(a, b), a); }

// ---- tables of 16 bytes, read by lanes in 0..15

struct Table {
  uint8_t v[16];
};
EDGE_INLINE Table table_u8(const uint8_t* p) {
  Table r;
  memcpy(r.v, p, sizeof r.v);
  return r;
}
EDGE_INLINE I lookup(Table t, I index) {
  I r;
  for (int l = 0; l < 16; ++l) r.v[l] = t.v[index.v[l]];
  return r;
}

// ---- reductions

// The one tree of all float sums: lanes i and i + 8, then i + 4, i + 2, i + 1.
EDGE_INLINE float reduce_add(V a) {
  for (int half = 8; half >= 1; half /= 2) {
    for (int l = 0; l < half; ++l) a.v[l] += a.v[l + half];
  }
  return a.v[0];
}
EDGE_INLINE int32_t reduce_max_i(I a) {
  for (int l = 1; l < 16; ++l) a.v[0] = a.v[0] > a.v[l] ? a.v[0] : a.v[l];
  return a.v[0];
}
EDGE_INLINE int32_t reduce_add_i(I a) {  // wraps
  uint32_t sum = 0;
  for (int l = 0; l < 16; ++l) sum += static_cast<uint32_t>(a.v[l]);
  return static_cast<int32_t>(sum);
}

}  // namespace edge::scalar
