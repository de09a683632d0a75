// Byte layouts of the R16 tiles: 16 rows x 32 k of one weight format. Mapped and used in place.
//
// "Quad" t of a tile is the four columns k = 4t .. 4t+3, t = 0..7. A 64-byte group holds one quad
// of 16 rows: byte b is row b >> 2, column 4t + (b & 3); one zmm, two ymm or four q-registers. The
// E4 idea (per-row scale, 7-bit group scale and a LUT selected by its spare bit) is ik_llama.cpp's
// IQ4_KS by I. Kawrakow; the tile order and the 7-bit LUT are ours.
#pragma once

#include "base/inline.h"
#include "tensor/tile_shape.h"

namespace edge {

// w = d_row * s * (kLutE4[q] + 2 * (sc & 1) - 64), s = (sc & 0xFE) - 127: odd, -127..127.
// Values stay in 0..127 so that AVX2's maddubs (u8 x s8 pairs) cannot saturate.
EDGE_CONSTANT uint8_t kLutE4[16] = {0,  12, 22, 32, 40, 46, 53,  59,
                                    64, 70, 76, 83, 90, 98, 108, 120};
EDGE_CONSTANT int kLutE4Shift = 2;  // LUT 1 = LUT 0 + 2
EDGE_CONSTANT int kLutE4Zero = 64;

// E3 and E2: w = d_row * s * (U[q] - z). The low bits of sc, those of kZeroMask, choose the zero
// point z = kZero - kZeroStep * (sc & kZeroMask) of the group, the others its scale. Tables are 16
// bytes, what one shuffle reads: E3's eight levels stand twice, so that bit 3 of an index may be
// anything; E2's four are looked up by the low and by the high half of two codes side by side.
EDGE_CONSTANT uint8_t kLutE3[16] = {0, 14, 23, 31, 38, 45, 53, 63, 0, 14, 23, 31, 38, 45, 53, 63};
EDGE_CONSTANT uint8_t kLutE2Low[16] = {0, 13, 22, 31, 0, 13, 22, 31, 0, 13, 22, 31, 0, 13, 22, 31};
EDGE_CONSTANT uint8_t kLutE2High[16] = {0, 0, 0, 0, 13, 13, 13, 13, 22, 22, 22, 22, 31, 31, 31, 31};
EDGE_CONSTANT int kE3Zero = 40, kE3ZeroStep = 4, kE3ZeroMask = 3;
EDGE_CONSTANT int kE2Zero = 24, kE2ZeroStep = 2, kE2ZeroMask = 7;

EDGE_CONSTANT int kE6Zero = 32;   // w = d_row * s * (q - 32), s = (sc & 0xFE) - 127
EDGE_CONSTANT int kE8Zero = 128;  // w = d_row * s * (q - 128)
EDGE_CONSTANT int kL8Zero = 128;

// Two bits, four codes a byte: quad 4h + i in bits 2i and 2i + 1 of pairs[h].
struct TileE2_16 {    // effectively 2.5 bits per weight
  uint8_t sc[2][16];  // [k / 16][row]
  uint8_t pairs[2][64];
};
static_assert(sizeof(TileE2_16) == 160);

// Three bits in nibbles of four: nibbles[j] holds quads 2j and 2j + 1, low and high, in its lower
// three bits each. The fourth bits, bits 3 and 7 of a byte, are bit j of the codes of quads 6
// and 7.
struct TileE3_32 {  // effectively 3.25 bits per weight
  uint8_t sc[16];   // [row]
  uint8_t nibbles[3][64];
};
static_assert(sizeof(TileE3_32) == 208);

// A group of 64 bytes packs two quads as nibbles: low = quad 2j, high = quad 2j + 1.
struct TileE4_16 {  // effectively 4.5 bits per weight
  uint8_t sc[2][16];
  uint8_t nibbles[4][64];
};
static_assert(sizeof(TileE4_16) == 288);

struct TileE4_32 {  // effectively 4.25 bits per weight
  uint8_t sc[16];   // [row]
  uint8_t nibbles[4][64];
};
static_assert(sizeof(TileE4_32) == 272);

// Six bits: the low four as in E4, the high two in hi: byte b of hi[h] holds, for its row and
// column class, bits 2i..2i+1 for quad 4h + i.  s = (sc & 0xFE) - 127 with bit 0 of sc zero.
struct TileE6_16 {  // effectively 6.5 bits per weight
  uint8_t sc[2][16];
  uint8_t nibbles[4][64];
  uint8_t hi[2][64];
};
static_assert(sizeof(TileE6_16) == 416);

struct TileE8_32 {  // effectively 8.25 bits per weight; s as in E6
  uint8_t sc[16];
  uint8_t quads[8][64];  // biased by 128
};
static_assert(sizeof(TileE8_32) == 528);

// Linear: w = s * (q - zero), any f16 scale and zero point per row; d_row is 1. What trainers and
// other tools quantized to 4 bits fits without rounding again.
struct TileL4_32 {  // effectively 4.75 bits per weight
  uint16_t s[16];   // [row], IEEE binary16; finite
  uint8_t zero[16];
  uint8_t nibbles[4][64];
};
static_assert(sizeof(TileL4_32) == 304);

// Linear with eight bits: w = s * (q - 128), exact in f32; d_row is 1. Q8_0 of ggml as it is.
struct TileL8_32 {       // effectively 8.5 bits per weight
  uint16_t s[16];        // [row], IEEE binary16; finite
  uint8_t quads[8][64];  // biased by 128; every byte is a weight, 0 being -128
};
static_assert(sizeof(TileL8_32) == 544);

// Linear with scales of scales, as Q4_K of ggml: w = (d * sc) * q - (dmin * min), rounded once
// (both products are exact in f32); d_row is 1. d and dmin stand in the head of 8 tiles.
struct HeadK4_32 {
  uint16_t d[16];  // [row], IEEE binary16; finite
  uint16_t dmin[16];
};
struct TileK4_32 {  // effectively 4.625 bits per weight
  static EDGE_CONSTANT size_t kHeadBytes = sizeof(HeadK4_32);
  uint8_t sc[16];
  uint8_t min[16];
  uint8_t nibbles[4][64];
};
static_assert(sizeof(TileK4_32) == 288 && sizeof(HeadK4_32) == 64);

struct TileF16 {       // 16 bits per weight; column by column, 16 rows each; d_row is 1
  uint16_t w[32][16];  // [k][row], IEEE binary16
};
static_assert(sizeof(TileF16) == 1024);

// The integer scale of a scale byte: the middle of the bytes that differ in the bits of `mask`
// alone, less 128. Odd, -127..127, for one such bit; +-2, 6, .. 126 for two; +-4, 12, .. 124 for
// three.
static constexpr int group_scale(uint8_t sc, int mask = 1) {
  return (sc & ~mask) + (mask + 1) / 2 - 128;
}

}  // namespace edge
