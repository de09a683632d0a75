// Where the tiles of a strip lie, for formats with and without heads (tensor/formats.inc): tiles
// are at one distance from each other in both. Layout is a tile of tiles.h or a kernel's format;
// one with heads has kHeadBytes. The others pay nothing for those.
#pragma once

#include "base/inline.h"
#include "quant/tiles.h"

namespace edge {

template <class Layout>
static constexpr bool kHasHeads = requires { Layout::kHeadBytes; };

// Bytes of a strip before its tiles.
template <class Layout>
EDGE_INLINE size_t tiles_offset_of(int64_t n_tiles) {
  if constexpr (kHasHeads<Layout>) return tiles_offset(Layout::kHeadBytes, n_tiles);
  return kStripHeaderBytes;
}
template <class Layout>
EDGE_INLINE size_t strip_bytes_of(size_t tile_bytes, int64_t n_tiles) {
  return tiles_offset_of<Layout>(n_tiles) + tile_bytes * static_cast<size_t>(n_tiles);
}

struct HeadedTile {
  const uint8_t* tile;
  const uint8_t* head;
};

// What a format unpacks: the address of tile `i`, and that of its head if it has one.
template <class Layout>
EDGE_INLINE auto packed_tile(const uint8_t* strip, const uint8_t* tile, int64_t i) {
  if constexpr (kHasHeads<Layout>) {
    const size_t head = static_cast<size_t>(i) / kHeadTiles;
    return HeadedTile{tile, strip + kStripHeaderBytes + Layout::kHeadBytes * head};
  } else {
    static_cast<void>(strip);
    static_cast<void>(i);
    return tile;
  }
}

}  // namespace edge
