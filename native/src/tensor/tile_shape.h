// The shape of R16 tiles. Plain constants: included by ISA objects, which may hold no STL.
#pragma once

#include "base/inline.h"
#include "base/plain_types.h"

namespace edge {

EDGE_CONSTANT int kTileRows = 16;
EDGE_CONSTANT int kTileK = 32;
EDGE_CONSTANT size_t kStripHeaderBytes = kTileRows * sizeof(float);  // d_row[16]
EDGE_CONSTANT int kHeadTiles = 8;  // that share a head, in formats that have them (formats.inc)

// Bytes of a strip before its tiles: d_row and the heads.
static constexpr size_t tiles_offset(size_t head_bytes, int64_t n_tiles) {
  return kStripHeaderBytes +
         head_bytes * ((static_cast<size_t>(n_tiles) + kHeadTiles - 1) / kHeadTiles);
}

}  // namespace edge
