// Where a user-perceived character ends: Unicode's extended grapheme clusters (UAX 29) with tables
// from the blob. Knows the rules, not which character is what, except for Hangul.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/status.h"
#include "tokenizer/blob.h"

namespace edge {

class Graphemes {
 public:
  // Reads the two-stage table and checks it.
  static Result<Graphemes> create(SectionReader& reader, const std::string& where);
  // End of the cluster that begins at `begin` (< size) of well-formed text.
  size_t cluster_end(std::string_view text, size_t begin) const;

 private:
  uint8_t bits(uint32_t code_point) const {
    return blocks_[size_t{index_[code_point >> 8]} << 8 | (code_point & 0xFF)];
  }

  TableView<uint16_t> index_;  // [0x1100] block of each 256 code points
  TableView<uint8_t> blocks_;  // [n_blocks * 256] bits of a code point
};

}  // namespace edge
