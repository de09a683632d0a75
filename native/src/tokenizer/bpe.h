// Byte-pair merging of one piece: symbols -> ids. Knows the vocabulary and merges, not how pieces
// were cut. Semantics are HF's BPE model (lowest rank first, ties leftmost).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/vocab.h"

namespace edge {

// Reused between pieces so that encoding a text does not allocate per word.
struct BpeScratch {
  std::vector<uint32_t> ids;
  std::vector<Merge> merges;  // merges[i] joins symbol i with the next one
  std::vector<int32_t> next;  // long pieces: linked list over symbols, -1 = none
  std::vector<int32_t> previous;
  std::vector<uint64_t> heap;  // rank << 32 | position
};

class Bpe {
 public:
  static Result<Bpe> create(const Sections& sections);

  void encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& out) const;
  const Vocab& vocab() const { return vocab_; }
  bool byte_alphabet() const { return byte_alphabet_; }

 private:
  void add_byte_symbols(std::string_view piece, std::vector<uint32_t>& ids) const;
  void add_character_symbols(std::string_view piece, std::vector<uint32_t>& ids) const;
  bool add_fallback_bytes(std::string_view character, std::vector<uint32_t>& ids) const;
  void merge_short(BpeScratch& scratch) const;
  void merge_long(BpeScratch& scratch) const;

  Vocab vocab_;
  MergeTable merges_;
  bool byte_alphabet_ = false;
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool has_merges_ = false;
  uint32_t unk_id_ = kNoId;
  uint32_t byte_ids_[256] = {};   // byte alphabet: symbols; otherwise "<0xNN>" ids; kNoId = none
  uint32_t ascii_ids_[128] = {};  // character alphabet: symbols of one-byte characters
};

}  // namespace edge
