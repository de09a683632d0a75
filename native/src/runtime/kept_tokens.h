// KeptTokens: which tokens of a sequence its KV still holds, and where they stand, once some were
// taken out of the middle. Integers only, so that it is tested without a model.
//
// Tokens count from 0 as they came; slots count the places in the pages, without gaps. Two ways out
// of the middle, and a sequence goes only one of them. shift(): whole pages go, the same for all
// heads, and what follows moves down, so that slot and position stay the same number. compress():
// every kv head keeps tokens of its own choice, as many as the others; tokens keep their positions.
// From tail() on, every head holds every token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace edge {

struct TokenRange {
  int32_t first = 0;
  int32_t end = 0;  // exclusive
  bool operator==(const TokenRange&) const = default;
};

class KeptTokens {
 public:
  bool is_all() const { return n_gone_ == 0; }
  bool is_shifted() const { return n_shifted_ > 0; }
  bool is_compressed() const { return n_gone_ > n_shifted_; }
  int n_gone() const { return n_gone_; }        // tokens without a slot, per head
  int n_shifted() const { return n_shifted_; }  // of these, whose positions others have taken
  int tail() const { return tail_; }
  // KV of tokens before this one was made when more was there: computed again it would differ.
  int n_fixed() const { return n_fixed_; }
  // Of a token from tail() on, processed or to come.
  int slot_of(int token) const { return token - n_gone_; }
  int position_of(int token) const { return token - n_shifted_; }
  int token_of(int slot) const { return slot + n_gone_; }  // from the tail's first slot on

  // Slots [n_sink, n_sink + n_drop) go, after n_tokens tokens. Not of a compressed sequence.
  void shift(int n_sink, int n_drop, int n_tokens);
  // Kv head h keeps the slots kept[h], which ascend and end with those of the last n_window of
  // n_tokens tokens. All heads keep as many. Not of a shifted sequence; n_tokens - n_window >=
  // tail().
  void compress(std::span<const std::vector<int32_t>> kept, int n_window, int n_tokens);
  // After n_tokens >= tail() tokens others come.
  void rewind(int n_tokens);
  void clear() { *this = {}; }

  // Tokens that at least one kv head still sees, ascending, of n_tokens >= tail().
  std::vector<TokenRange> ranges(int n_tokens) const;

 private:
  int32_t token_at(size_t head, int slot) const;

  std::vector<std::vector<int32_t>> heads_;  // tokens by slot, before the tail; one list: of all
  int n_gone_ = 0;
  int n_shifted_ = 0;
  int tail_ = 0;
  int n_fixed_ = 0;
};

}  // namespace edge
