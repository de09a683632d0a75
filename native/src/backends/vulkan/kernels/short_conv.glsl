// Gated short convolutions (gpu/short_conv.inl.h).
#include "pages.glsl"
EDGE_ARGS(ShortConvArgs)

// The state of the sequence's token in `slot`.
float_ptr state_of(int sequence, int slot) {
  uint8_t_ptr page = AT(AT(args.rows.tables, sequence).v.pages, slot / kPageTokens).v.bytes;
  return AT(AS(float, AT(page, args.offset)), slot % kPageTokens * args.n_cols);
}
