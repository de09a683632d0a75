// Texts in bounded memory: two suffix automata, a young one that grows and, once it is full,
// becomes the old one in place of that. Both are searched, so a text is forgotten after at least
// one and at most two times the size of a generation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "speculation/suffix_automaton.h"

namespace edge {

// What a text's end was found to repeat, and where; null: nothing.
struct TextMatch {
  const SuffixAutomaton* automaton = nullptr;
  SuffixAutomaton::Match match;
};

// The text of one sequence, which it searches for what it repeats of itself.
class OwnText {
 public:
  explicit OwnText(size_t memory_bytes) : memory_bytes_(memory_bytes) {}

  size_t n_tokens() const { return n_tokens_; }
  void extend(int32_t token);
  // `tokens` are those that stay, a beginning of what was extended. What is taken back has been
  // written all the same and remains to be found.
  void rewind(std::span<const int32_t> tokens);
  TextMatch match() const;
  size_t memory_bytes() const { return young_.memory_bytes() + old_.memory_bytes(); }

 private:
  size_t memory_bytes_;  // at most
  size_t n_tokens_ = 0;
  size_t young_from_ = 0;  // the token that the young one's present text begins with
  SuffixAutomaton young_;
  SuffixAutomaton old_;
  SuffixAutomaton::Match old_match_;
};

// Texts of sequences that ended, which others search.
class TextStore {
 public:
  // Where the text of a sequence is in it.
  struct Cursor {
    uint64_t generation = 0;
    SuffixAutomaton::Match young;
    SuffixAutomaton::Match old;
  };

  explicit TextStore(size_t memory_bytes) : memory_bytes_(memory_bytes) {}

  // Of a text that is too long only the end.
  void add(std::span<const int32_t> text);
  // As add(), but nothing finds it before add_waiting(), and if many wait the first ones are gone.
  void add_later(std::span<const int32_t> text);
  void add_waiting();
  void advance(Cursor& cursor, int32_t token) const;
  TextMatch match(const Cursor& cursor) const;
  size_t memory_bytes() const {
    return young_.memory_bytes() + old_.memory_bytes() + kMostWaiting * sizeof(int32_t);
  }

 private:
  static constexpr size_t kMostWaiting = 4096;  // tokens

  void keep_up(Cursor& cursor) const;

  size_t memory_bytes_;  // at most
  uint64_t generation_ = 0;
  SuffixAutomaton young_;
  SuffixAutomaton old_;
  std::vector<int32_t> waiting_;  // texts, each with kEnd behind it
};

}  // namespace edge
