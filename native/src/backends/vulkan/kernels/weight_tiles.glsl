// How a thread reads one row of a tile (quant/tiles.h gives the bytes), and what its format does with
// a sum: gpu/weight_tiles.inl.h, with the format as a constant of the pipeline.
#include "numbers.glsl"

layout(constant_id = 0) const int kFormat = 0;


const int kStripHeaderBytes = 4 * kTileRows;
const int kHeadBytes = 64;  // of K4_32

// A row of a tile: eight words of four bytes, which dot4() multiplies with int8 activations.
struct TileRow {
  uint quads[8];
  int scales[2];
  int zeros[2];
  float scale;
  float minimum;
  uint16_t_ptr halves;  // of F16, 16 apart
};

int byte_of(uint word, int i) { return bitfieldExtract(int(word), 8 * i, 8); }
int dot4(uint a, int b, int c) {
  [[unroll]] for (int i = 0; i < 4; ++i) c += byte_of(a, i) * bitfieldExtract(b, 8 * i, 8);
  return c;
}

uint word_at(uint8_t_ptr group, int row) { return AT(AS(uint32_t, group), row).v; }
float half_at(uint8_t_ptr halves, int i) { return half_to_float(uint(AT(AS(uint16_t, halves), i).v)); }

// A table of 16 bytes as four words, and its entries for eight nibbles: the low ones, the high ones.
#define WORD(t, i) (t[i] | t[i + 1] << 8 | t[i + 2] << 16 | t[i + 3] << 24)
#define WORDS(t) uvec4(WORD(t, 0), WORD(t, 4), WORD(t, 8), WORD(t, 12))
uint entry(uvec4 table, uint i) {
  const uint low = i < 4u ? table.x : table.y, high = i < 12u ? table.z : table.w;
  return (i < 8u ? low : high) >> 8u * (i & 3u) & 255u;
}
uvec2 lookup8(uvec4 table, uint nibbles) {
  uvec2 found = uvec2(0u);
  [[unroll]] for (uint i = 0u; i < 4u; ++i) {
    found.x |= entry(table, nibbles >> 8u * i & 15u) << 8u * i;
    found.y |= entry(table, nibbles >> (8u * i + 4u) & 15u) << 8u * i;
  }
  return found;
}

void lut_quads(uvec4 table, uint8_t_ptr nibbles, int row, inout TileRow to) {
  [[unroll]] for (int j = 0; j < 4; ++j) {
    const uvec2 found = lookup8(table, word_at(nibbles + 64 * j, row));
    to.quads[2 * j] = found.x;
    to.quads[2 * j + 1] = found.y;
  }
}
void nibble_quads(uint8_t_ptr nibbles, int row, inout TileRow to) {
  [[unroll]] for (int j = 0; j < 4; ++j) {
    const uint word = word_at(nibbles + 64 * j, row);
    to.quads[2 * j] = word & 0x0f0f0f0fu;
    to.quads[2 * j + 1] = word >> 4 & 0x0f0f0f0fu;
  }
}
void byte_quads(uint8_t_ptr quads, int row, inout TileRow to) {
  [[unroll]] for (int t = 0; t < 8; ++t) to.quads[t] = word_at(quads + 64 * t, row) ^ 0x80808080u;
}

int scale_of(int sc, int mask) { return (sc & ~mask) + (mask + 1) / 2 - 128; }
// Scales and zero points of 16 columns each.
void scales_by_16(uint8_t_ptr tile, int row, int mask, int zero, int zero_step, inout TileRow to) {
  [[unroll]] for (int h = 0; h < 2; ++h) {
    const int sc = int(AT(tile, 16 * h + row).v);
    to.scales[h] = scale_of(sc, mask);
    to.zeros[h] = zero + zero_step * (sc & mask);
  }
}
void scale_by_32(uint8_t_ptr tile, int row, int mask, int zero, int zero_step, inout TileRow to) {
  const int sc = int(AT(tile, row).v);
  to.scale = float(scale_of(sc, mask));
  to.zeros[0] = zero + zero_step * (sc & mask);
}

void read_e2(uint8_t_ptr tile, int row, inout TileRow to) {
  [[unroll]] for (int h = 0; h < 2; ++h) {
    const uint pairs = word_at(tile + 32 + 64 * h, row);
    [[unroll]] for (int i = 0; i < 2; ++i) {
      const uint low = pairs >> 4 * i & 0x03030303u, high = pairs >> (4 * i + 2) & 0x03030303u;
      const uvec2 found = lookup8(WORDS(kLutE2Low), low | high << 4);
      to.quads[4 * h + 2 * i] = found.x;
      to.quads[4 * h + 2 * i + 1] = found.y;
    }
  }
  scales_by_16(tile, row, kE2ZeroMask, kE2Zero, -kE2ZeroStep, to);
}
void read_e3(uint8_t_ptr tile, int row, inout TileRow to) {
  uint last = 0u;  // bit j of the codes of quads 6 and 7 stands above nibbles[j]'s
  uvec2 found;
  [[unroll]] for (int j = 0; j < 3; ++j) {
    const uint word = word_at(tile + 16 + 64 * j, row);
    found = lookup8(WORDS(kLutE3), word);
    to.quads[2 * j] = found.x;
    to.quads[2 * j + 1] = found.y;
    last |= (word >> 3 & 0x11111111u) << j;
  }
  found = lookup8(WORDS(kLutE3), last);
  to.quads[6] = found.x;
  to.quads[7] = found.y;
  scale_by_32(tile, row, kE3ZeroMask, kE3Zero, -kE3ZeroStep, to);
}
void read_e6(uint8_t_ptr tile, int row, inout TileRow to) {
  nibble_quads(tile + 32, row, to);
  [[unroll]] for (int h = 0; h < 2; ++h) {
    const uint pairs = word_at(tile + 288 + 64 * h, row);
    [[unroll]] for (int i = 0; i < 4; ++i) {
      to.quads[4 * h + i] |= (pairs >> 2 * i & 0x03030303u) << 4;
    }
  }
  scales_by_16(tile, row, 1, kE6Zero, 0, to);
}

// head: of K4_32, what eight tiles share.
TileRow read_row(uint8_t_ptr tile, uint8_t_ptr head, int row) {
  TileRow to;
  switch (kFormat) {
    case kE2_16:
      read_e2(tile, row, to);
      break;
    case kE3_32:
      read_e3(tile, row, to);
      break;
    case kE4_16:
      lut_quads(WORDS(kLutE4), tile + 32, row, to);
      scales_by_16(tile, row, 1, kLutE4Zero, -kLutE4Shift, to);
      break;
    case kE4_32:
      lut_quads(WORDS(kLutE4), tile + 16, row, to);
      scale_by_32(tile, row, 1, kLutE4Zero, -kLutE4Shift, to);
      break;
    case kE6_16:
      read_e6(tile, row, to);
      break;
    case kE8_32:
      byte_quads(tile + 16, row, to);
      scale_by_32(tile, row, 1, 0, 0, to);
      break;
    case kK4_32:
      nibble_quads(tile + 32, row, to);
      to.scale = mul(half_at(head, row), float(AT(tile, row).v));
      to.minimum = mul(half_at(head + 32, row), float(AT(tile, 16 + row).v));
      break;
    case kL4_32:
      nibble_quads(tile + 48, row, to);
      to.scale = half_at(tile, row);
      to.zeros[0] = int(AT(tile, 32 + row).v);
      break;
    case kL8_32:
      byte_quads(tile + 32, row, to);
      to.scale = half_at(tile, row);
      to.zeros[0] = 0;
      break;
    case kF16:
      to.halves = AT(AS(uint16_t, tile), row);
      break;
  }
  return to;
}

bool is_by_16() { return kFormat == kE2_16 || kFormat == kE4_16 || kFormat == kE6_16; }

// The exact integer, or what is rounded once, of a block's 32 activations; sums: of 16 each.
float tile_sum(TileRow row, int a[8], ivec2 sums) {
  int low = 0, high = 0;
  [[unroll]] for (int t = 0; t < 4; ++t) {
    low = dot4(row.quads[t], a[t], low);
    high = dot4(row.quads[t + 4], a[t + 4], high);
  }
  if (is_by_16()) {
    low -= row.zeros[0] * sums.x;
    high -= row.zeros[1] * sums.y;
    return float(row.scales[0] * low + row.scales[1] * high);
  }
  if (kFormat == kK4_32) {
    const float p = mul(row.minimum, float(-(sums.x + sums.y)));
    return fma_exact(row.scale, float(low + high), p);
  }
  return mul(row.scale, float(low + high - row.zeros[0] * (sums.x + sums.y)));
}

// The weight of column k, without its row's factor.
float tile_value(TileRow row, int k) {
  if (kFormat == kF16) return half_to_float(uint(AT(row.halves, 16 * k).v));
  const int code = byte_of(row.quads[k / 4], k % 4);
  if (is_by_16()) return float(row.scales[k / 16] * (code - row.zeros[k / 16]));
  if (kFormat == kK4_32) return sub(mul(row.scale, float(code)), row.minimum);
  if (kFormat == kL4_32 || kFormat == kL8_32) return mul(row.scale, float(code - row.zeros[0]));
  return float(int(row.scale) * (code - row.zeros[0]));  // a weight that is zero has no sign
}

uint8_t_ptr strip_of(Matrix w, int64_t number) { return AT(w.strips, w.strip_bytes * number); }
float row_factor(uint8_t_ptr strip, int row) { return AT(AS(float, strip), row).v; }
int64_t tile_bytes() {
  int format = kFormat;  // glslang makes no valid code of a constant of the pipeline as an index
  return kTileBytes[format];
}
TileRow row_of_tile(Matrix w, uint8_t_ptr strip, int64_t tile, int row) {
  uint8_t_ptr head = AT(strip, kStripHeaderBytes + kHeadBytes * (tile / kHeadTiles));
  return read_row(AT(strip, w.tiles_offset + tile_bytes() * tile), head, row);
}
