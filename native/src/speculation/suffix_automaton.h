// SuffixAutomaton: all substrings of a growing set of texts, for the longest one that the end of a
// text repeats and what followed it (SAM-Decoding, Hu et al. 2024, arXiv 2411.10666; the
// construction is Blumer et al. 1985, for several texts Mohri et al. 2009). O(1) amortised a token;
// at most 2 states and 3 edges a token, in arrays. What follows a state comes most recent first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edge {

class SuffixAutomaton {
 public:
  static constexpr int32_t kRoot = 0;
  static constexpr int32_t kNone = -1;

  // A place in it: the text so far ends with `length` tokens that the state stands for.
  struct Match {
    int32_t state = kRoot;
    int32_t length = 0;
  };
  struct Edge {
    int32_t token = 0;
    int32_t to = kNone;
    int32_t next = kNone;  // of the same state, followed less recently
    int32_t previous = kNone;
    int32_t count = 1;  // times it followed where nothing longer had been followed by it
  };

  SuffixAutomaton() { clear(); }

  void clear();
  // Another text begins: the next token follows nothing.
  void start_text() { last_ = kRoot; }
  void extend(int32_t token);
  // Continues after tokens that a text in it begins with: false, and as start_text(), for others.
  template <class Tokens>
  bool resume(const Tokens& tokens) {
    last_ = kRoot;
    for (const int32_t token : tokens) {
      const int32_t edge = find_edge(last_, token);
      if (edge == kNone) {
        last_ = kRoot;
        return false;
      }
      last_ = edges_[static_cast<size_t>(edge)].to;
    }
    return true;
  }

  // Where the text being extended ends: the longest of its ends that something has followed.
  Match end_match() const;
  // After one more token of a text that this automaton need not hold.
  Match advance(Match match, int32_t token) const;
  // The longest end of the match that something has followed; the root if none.
  Match followed(Match match) const;
  // The next shorter context that more may have followed; kNone state above the root.
  Match shorter(Match match) const;

  int32_t first_edge(int32_t state) const { return states_[static_cast<size_t>(state)].first; }
  const Edge& edge(int32_t index) const { return edges_[static_cast<size_t>(index)]; }

  size_t memory_bytes() const;
  // What of that is in use; the rest is room to grow, at most half as much again.
  size_t used_bytes() const;

 private:
  struct State {
    int32_t length = 0;
    int32_t link = kNone;
    int32_t first = kNone;
    int32_t n_edges = 0;
  };
  struct Slot {
    int32_t state = kNone;
    int32_t edge = kNone;
  };
  // States with more edges than this are looked up by hash: the root has one per different token.
  static constexpr int32_t kListedEdges = 8;

  const State& state(int32_t s) const { return states_[static_cast<size_t>(s)]; }
  State& state(int32_t s) { return states_[static_cast<size_t>(s)]; }
  int32_t new_state(int32_t length, int32_t link);
  int32_t clone(int32_t original, int32_t length);
  // Lets the edges from `s` and its suffixes over `token` that lead to `from` lead to `to`.
  void redirect(int32_t s, int32_t token, int32_t from, int32_t to);
  // The state of length(from) + 1 that the edge leads to, split off if need be.
  int32_t exact_target(int32_t from, int32_t edge);

  int32_t find_edge(int32_t s, int32_t token) const;
  void add_edge(int32_t s, int32_t token, int32_t to);
  void see_again(int32_t s, int32_t edge);
  void index_edge(int32_t s, int32_t edge);
  size_t slot_of(int32_t s, int32_t token) const;
  void grow_slots();

  std::vector<State> states_;
  std::vector<Edge> edges_;
  std::vector<Slot> slots_;  // a power of two of them; at most half are taken
  size_t n_slots_taken_ = 0;
  int32_t last_ = kRoot;
};

}  // namespace edge
