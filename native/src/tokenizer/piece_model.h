// What turns one piece of text into ids: the vocabulary and what the kinds of model share. Knows
// not how pieces were cut.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/vocab.h"

namespace edge {

// Reused between pieces so that encoding a text does not allocate per word.
struct PieceScratch {
  std::vector<uint32_t> ids;
  // BPE
  std::vector<Merge> merges;  // long pieces: merges[i] joins symbol i with the next one
  std::vector<int32_t> next;  // linked list over symbols, -1 = none
  std::vector<int32_t> previous;
  std::vector<uint64_t> heap;  // rank << 32 | position
  // Unigram
  std::vector<uint32_t> best;  // [n_bytes + 1] id of the last token of the best path to here
  std::vector<double> scores;  // of that path; a ring over positions
};

// The section "model".
struct ModelHeader {
  uint32_t kind = 0;
  bool byte_alphabet = false;
  uint32_t n_vocab = 0;
  uint32_t unk_id = kNoId;
  bool fuse_unk = false;
  bool byte_fallback = false;
  uint32_t n_merges = 0;
  uint32_t merge_probes = 0;
  uint32_t vocab_probes = 0;
};

class PieceModel {
 public:
  static Result<std::unique_ptr<PieceModel>> create(const Sections& sections);
  PieceModel() = default;
  PieceModel(const PieceModel&) = delete;
  PieceModel& operator=(const PieceModel&) = delete;
  virtual ~PieceModel() = default;

  // Appends the ids of `piece` (well-formed UTF-8) to `out`.
  virtual void encode(std::string_view piece, PieceScratch& scratch,
                      std::vector<int32_t>& out) const = 0;
  const Vocab& vocab() const { return vocab_; }
  bool byte_alphabet() const { return header_.byte_alphabet; }

 protected:
  // Reads what only this kind has; vocabulary and header are there.
  virtual Status init(const Sections& sections) = 0;
  // True if every byte of `text` has a "<0xNN>" token.
  bool has_fallback_bytes(std::string_view text) const;

  ModelHeader header_;
  Vocab vocab_;
  uint32_t byte_ids_[256] = {};  // byte alphabet: symbols; otherwise "<0xNN>" ids; kNoId = none
};

}  // namespace edge
