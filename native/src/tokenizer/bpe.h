// Byte-pair merging of one piece: symbols -> ids. Knows the vocabulary and merges, not how pieces
// were cut. Semantics are HF's BPE model (lowest rank first, ties leftmost).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/piece_model.h"

namespace edge {

class Bpe final : public PieceModel {
 public:
  void encode(std::string_view piece, PieceScratch& scratch,
              std::vector<int32_t>& out) const override;

 protected:
  Status init(const Sections& sections) override;

 private:
  void add_byte_symbols(std::string_view piece, std::vector<uint32_t>& ids) const;
  void add_character_symbols(std::string_view piece, std::vector<uint32_t>& ids) const;
  bool add_fallback_bytes(std::string_view character, std::vector<uint32_t>& ids) const;
  void merge_short(std::vector<uint32_t>& ids) const;
  void merge_long(PieceScratch& scratch) const;

  MergeTable merges_;
  uint32_t ascii_ids_[128] = {};  // character alphabet: symbols of one-byte characters
};

}  // namespace edge
