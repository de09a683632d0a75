// Included once per ISA inside its namespace, after vec16.h and vec16_probe.h.
#include "kernels/generic/math.inl.h"

EDGE_INLINE void put(ProbeOutput& out, const char* name, const void* p, size_t n_bytes) {
  memcpy(out.row[out.n_rows], p, n_bytes);
  out.name[out.n_rows++] = name;
}
EDGE_INLINE void put(ProbeOutput& out, const char* name, I x) {
  int32_t lanes[16];
  store_i(lanes, x);
  put(out, name, lanes, sizeof lanes);
}
EDGE_INLINE void put(ProbeOutput& out, const char* name, V x) {
  put(out, name, select(cmp_eq(x, x), as_i(x), set1_i(0x7fc00000)));
}
EDGE_INLINE void put(ProbeOutput& out, const char* name, M x) {
  const uint32_t bits = mask_bits(x) | (any(x) ? 0x10000u : 0u);
  put(out, name, &bits, sizeof bits);
}

#define EDGE_PUT(expr) put(out, #expr, expr)

EDGE_INLINE void probe_floats(const ProbeInput& in, ProbeOutput& out, V a, V b, V c) {
  EDGE_PUT(add(a, b));
  EDGE_PUT(sub(a, b));
  EDGE_PUT(mul(a, b));
  EDGE_PUT(div(a, b));
  EDGE_PUT(sqrt(a));
  EDGE_PUT(fma(a, b, c));
  EDGE_PUT(neg(a));
  EDGE_PUT(abs(a));
  EDGE_PUT(min(a, b));
  EDGE_PUT(max(a, b));
  EDGE_PUT(floor(a));
  EDGE_PUT(round_even(a));
  EDGE_PUT(cmp_lt(a, b));
  EDGE_PUT(cmp_le(a, b));
  EDGE_PUT(cmp_gt(a, b));
  EDGE_PUT(cmp_ge(a, b));
  EDGE_PUT(cmp_eq(a, b));
  EDGE_PUT(select(mask_and(cmp_lt(a, b), cmp_lt(b, c)), a, b));
  EDGE_PUT(select(mask_or(cmp_lt(a, b), mask_not(cmp_lt(b, c))), a, b));
  EDGE_PUT(set1(3.5f));
  EDGE_PUT(zero());
  EDGE_PUT(set1(reduce_add(a)));
  EDGE_PUT(exp(a));
  EDGE_PUT(silu(b));
  EDGE_PUT(load_f16(in.halves));
  uint16_t halves[16];
  store_f16(halves, select(cmp_eq(a, a), a, zero()));
  put(out, "store_f16(a)", halves, sizeof halves);
  float some[16] = {};
  store_n(some, a, in.n);
  put(out, "store_n(a)", as_i(load(some)));
  put(out, "load_n(a)", as_i(load_n(reinterpret_cast<const float*>(in.a), in.n)));
}

EDGE_INLINE void probe_ints(const ProbeInput& in, ProbeOutput& out, I a, I b) {
  EDGE_PUT(to_float(a));
  EDGE_PUT(to_int(as_f(a)));
  EDGE_PUT(add(a, b));
  EDGE_PUT(sub(a, b));
  EDGE_PUT(mul(a, b));
  EDGE_PUT(min(a, b));
  EDGE_PUT(max(a, b));
  EDGE_PUT(bit_and(a, b));
  EDGE_PUT(bit_or(a, b));
  EDGE_PUT(bit_xor(a, b));
  EDGE_PUT(shl(a, 5));
  EDGE_PUT(shr(a, 5));
  EDGE_PUT(sar(a, 5));
  EDGE_PUT(cmp_lt(a, b));
  EDGE_PUT(cmp_gt(a, b));
  EDGE_PUT(cmp_eq(a, b));
  EDGE_PUT(select(cmp_lt(a, b), a, b));
  EDGE_PUT(add_where(cmp_lt(a, b), a, b));
  EDGE_PUT(set1_i(reduce_max_i(a)));
  EDGE_PUT(set1_i(reduce_add_i(a)));
  EDGE_PUT(zero_i());
  EDGE_PUT(load_u8(in.bytes));
  EDGE_PUT(load_i8(reinterpret_cast<const int8_t*>(in.bytes)));
  EDGE_PUT(lookup(table_u8(in.bytes), bit_and(a, set1_i(15))));
  uint8_t bytes[16];
  store_u8(bytes, shr(a, 24));
  put(out, "store_u8", bytes, sizeof bytes);
  store_i8(reinterpret_cast<int8_t*>(bytes), sar(a, 24));
  put(out, "store_i8", bytes, sizeof bytes);
  int16_t words[16];
  store_i16(words, sar(b, 16));
  put(out, "store_i16", words, sizeof words);
}

EDGE_INLINE void probe(const ProbeInput& in, ProbeOutput& out) {
  memset(&out, 0, sizeof out);
  const I a = load_i(reinterpret_cast<const int32_t*>(in.a));
  const I b = load_i(reinterpret_cast<const int32_t*>(in.b));
  const I c = load_i(reinterpret_cast<const int32_t*>(in.c));
  probe_floats(in, out, as_f(a), as_f(b), as_f(c));
  probe_ints(in, out, a, b);
}
