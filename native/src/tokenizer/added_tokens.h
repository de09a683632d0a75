// Added tokens: literal strings that become one id before anything else happens. Semantics are HF's
// AddedVocabulary (leftmost, longest, not overlapping). Knows nothing of BPE.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/blob.h"
#include "tokenizer/spaces.h"

namespace edge {

// A stretch of text: ordinary (id = kNotAdded) or one added token.
struct Segment {
  std::string_view text;
  int32_t id;
};
constexpr int32_t kNotAdded = -1;

class AddedTokens {
 public:
  struct Lists;
  // Two lists: tokens looked for in the raw text, and those looked for in the normalized text.
  static Result<Lists> create(const Sections& sections, const SpaceSet& spaces, uint32_t n_vocab);

  bool empty() const { return tokens_.empty(); }
  // Appends the segments of `text`. Without `special`, special tokens are found but stay text, and
  // hide what overlaps them (as in HF).
  void split(std::string_view text, bool special, std::vector<Segment>& segments) const;

 private:
  struct Token {
    std::string_view text;
    int32_t id;
    uint32_t flags;
  };
  // Index of the longest token at the start of `text`, or -1.
  int64_t longest_at(std::string_view text) const;
  Status read_tokens(SectionReader& reader, uint32_t n_tokens, std::string_view texts,
                     uint32_t n_vocab);

  std::vector<Token> tokens_;  // sorted by bytes
  uint32_t first_[257] = {};   // tokens_ range of each first byte
  SpaceSet spaces_;
};

struct AddedTokens::Lists {
  AddedTokens raw;
  AddedTokens normalized;
};

}  // namespace edge
