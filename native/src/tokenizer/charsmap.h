// SentencePiece's precompiled normalization as HF applies it: cluster by cluster, a short cluster
// as a whole by the shortest rule that begins it. Knows the rules' table, not what they are for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "tokenizer/blob.h"
#include "tokenizer/graphemes.h"
#include "tokenizer/trie.h"

namespace edge {

class Charsmap {
 public:
  // The section is optional: without it exists() is false.
  static Result<Charsmap> create(const Sections& sections);
  bool exists() const { return exists_; }
  Result<std::string> apply(std::string_view text) const;

 private:
  // Appends what `part` becomes; false if no rule begins it.
  bool replace(std::string_view part, std::string& out) const;

  bool exists_ = false;
  ByteTrie trie_;                // of text -> number of a replacement
  TableView<uint32_t> offsets_;  // [n_replacements + 1] into texts_
  std::string_view texts_;
  Graphemes graphemes_;
};

}  // namespace edge
