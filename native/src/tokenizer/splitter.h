// Splitting text with a DFA over code point classes. Knows nothing of tokens: the converter
// compiled the pre-tokenizer's regex (leftmost-first semantics) into the tables used here in place.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/blob.h"

namespace edge {

// Two-stage table: code point -> equivalence class.
class CodePointClasses {
 public:
  static Result<CodePointClasses> create(const Sections& sections, uint32_t n_classes);
  uint32_t operator()(uint32_t code_point) const {
    if (code_point < 128) return ascii_[code_point];
    const uint32_t block = index_[code_point >> 8];
    return blocks_[size_t{block} << 8 | (code_point & 0xFF)];
  }

 private:
  TableView<uint16_t> index_;  // [0x1100] block of each 256 code points
  TableView<uint8_t> blocks_;  // [n_blocks * 256] class
  uint8_t ascii_[128] = {};    // the first of them, copied: most text needs no other
};

// What happens to a match and to the text between matches.
struct SplitBehavior {
  bool keep_match = true;
  bool keep_gap = true;
};

class DfaSet {
 public:
  static Result<DfaSet> create(const Sections& sections);
  uint32_t n_dfas() const { return static_cast<uint32_t>(dfas_.size()); }

  // Appends the pieces of `text` (well-formed UTF-8) to `pieces`.
  Status split(uint32_t dfa, SplitBehavior behavior, std::string_view text,
               std::vector<std::string_view>& pieces) const;
  // `text` with every match replaced by `to`.
  Result<std::string> replace(uint32_t dfa, std::string_view text, std::string_view to) const;

 private:
  // transitions[state * (n_classes + 1) + class]: low 15 bits next state (0 = dead), top bit "a
  // match ends before this code point". The last class is the end of the text. Matching starts in
  // state 1.
  struct Dfa {
    TableView<uint16_t> transitions;
    uint32_t n_states = 0;
  };
  // End of the match that starts at `begin`, or `begin` if none. Adds what it read to `n_steps`.
  size_t match_end(const Dfa& dfa, std::string_view text, size_t begin, uint64_t& n_steps) const;
  // Calls found(begin, end) for every match, left to right.
  template <class F>
  Status for_each_match(uint32_t dfa, std::string_view text, F&& found) const;

  CodePointClasses classes_;
  uint32_t n_classes_ = 0;
  std::vector<Dfa> dfas_;
};

}  // namespace edge
