#include "speculation/suffix_automaton.h"

#include <utility>

namespace edge {

namespace {

template <class T>
void append(std::vector<T>& to, const T& value) {
  if (to.size() == to.capacity()) to.reserve(to.size() + to.size() / 2 + 16);
  to.push_back(value);
}

}  // namespace

void SuffixAutomaton::clear() {
  // Not clear(): what a full one has taken is given back.
  states_ = {};
  edges_ = {};
  slots_ = {};
  n_slots_taken_ = 0;
  new_state(0, kNone);
  last_ = kRoot;
}

void SuffixAutomaton::extend(int32_t token) {
  if (const int32_t known = find_edge(last_, token); known != kNone) {
    see_again(last_, known);
    last_ = exact_target(last_, known);
    return;
  }
  const int32_t end = new_state(state(last_).length + 1, kRoot);
  int32_t s = last_;
  last_ = end;
  int32_t edge = kNone;
  while (s != kNone && (edge = find_edge(s, token)) == kNone) {
    add_edge(s, token, end);
    s = state(s).link;
  }
  if (s == kNone) return;
  see_again(s, edge);
  state(end).link = exact_target(s, edge);
}

int32_t SuffixAutomaton::exact_target(int32_t from, int32_t edge) {
  const int32_t token = edges_[static_cast<size_t>(edge)].token;
  const int32_t to = edges_[static_cast<size_t>(edge)].to;
  const int32_t length = state(from).length + 1;
  if (state(to).length == length) return to;
  const int32_t split = clone(to, length);
  redirect(from, token, to, split);
  state(to).link = split;
  return split;
}

int32_t SuffixAutomaton::clone(int32_t original, int32_t length) {
  const int32_t copy = new_state(length, state(original).link);
  int32_t last = kNone;
  for (int32_t e = first_edge(original); e != kNone; e = edge(e).next) last = e;
  // From the last on: each is put in front.
  for (int32_t e = last; e != kNone; e = edge(e).previous) {
    const Edge original_edge = edge(e);
    add_edge(copy, original_edge.token, original_edge.to);
    edges_.back().count = original_edge.count;
  }
  return copy;
}

void SuffixAutomaton::redirect(int32_t s, int32_t token, int32_t from, int32_t to) {
  for (; s != kNone; s = state(s).link) {
    const int32_t e = find_edge(s, token);
    if (e == kNone || edge(e).to != from) return;
    edges_[static_cast<size_t>(e)].to = to;
  }
}

SuffixAutomaton::Match SuffixAutomaton::end_match() const {
  return followed({last_, state(last_).length});
}

SuffixAutomaton::Match SuffixAutomaton::followed(Match match) const {
  while (match.state != kRoot && state(match.state).first == kNone) {
    match.state = state(match.state).link;
    match.length = state(match.state).length;
  }
  return match;
}

SuffixAutomaton::Match SuffixAutomaton::shorter(Match match) const {
  const int32_t link = state(match.state).link;
  return {link, link == kNone ? 0 : state(link).length};
}

SuffixAutomaton::Match SuffixAutomaton::advance(Match match, int32_t token) const {
  // A split since the match was made has moved its tokens to a state of their own.
  while (match.state != kRoot && state(state(match.state).link).length >= match.length) {
    match.state = state(match.state).link;
  }
  for (; match.state != kNone; match = shorter(match)) {
    const int32_t e = find_edge(match.state, token);
    if (e != kNone) return {edge(e).to, match.length + 1};
  }
  return {};
}

size_t SuffixAutomaton::memory_bytes() const {
  return states_.capacity() * sizeof(State) + edges_.capacity() * sizeof(Edge) +
         slots_.capacity() * sizeof(Slot);
}

size_t SuffixAutomaton::used_bytes() const {
  return states_.size() * sizeof(State) + edges_.size() * sizeof(Edge) +
         slots_.size() * sizeof(Slot);
}

int32_t SuffixAutomaton::new_state(int32_t length, int32_t link) {
  append(states_, State{.length = length, .link = link});
  return static_cast<int32_t>(states_.size()) - 1;
}

int32_t SuffixAutomaton::find_edge(int32_t s, int32_t token) const {
  if (state(s).n_edges > kListedEdges) return slots_[slot_of(s, token)].edge;
  int32_t e = first_edge(s);
  while (e != kNone && edge(e).token != token) e = edge(e).next;
  return e;
}

void SuffixAutomaton::add_edge(int32_t s, int32_t token, int32_t to) {
  const int32_t added = static_cast<int32_t>(edges_.size());
  const int32_t first = state(s).first;
  append(edges_, Edge{.token = token, .to = to, .next = first});
  if (first != kNone) edges_[static_cast<size_t>(first)].previous = added;
  state(s).first = added;
  const int32_t n = ++state(s).n_edges;
  if (n == kListedEdges + 1) {
    for (int32_t e = added; e != kNone; e = edge(e).next) index_edge(s, e);
  } else if (n > kListedEdges) {
    index_edge(s, added);
  }
}

void SuffixAutomaton::see_again(int32_t s, int32_t index) {
  ++edges_[static_cast<size_t>(index)].count;
  const int32_t first = state(s).first;
  if (first == index) return;
  Edge& moved = edges_[static_cast<size_t>(index)];
  edges_[static_cast<size_t>(moved.previous)].next = moved.next;
  if (moved.next != kNone) edges_[static_cast<size_t>(moved.next)].previous = moved.previous;
  moved.previous = kNone;
  moved.next = first;
  edges_[static_cast<size_t>(first)].previous = index;
  state(s).first = index;
}

size_t SuffixAutomaton::slot_of(int32_t s, int32_t token) const {
  uint64_t key = (static_cast<uint64_t>(static_cast<uint32_t>(s)) << 32) |
                 static_cast<uint64_t>(static_cast<uint32_t>(token));
  key *= 0x9e3779b97f4a7c15ULL;
  const size_t mask = slots_.size() - 1;
  size_t i = static_cast<size_t>(key >> 32) & mask;
  while (slots_[i].state != kNone &&
         (slots_[i].state != s || edge(slots_[i].edge).token != token)) {
    i = (i + 1) & mask;
  }
  return i;
}

void SuffixAutomaton::index_edge(int32_t s, int32_t index) {
  if (2 * (n_slots_taken_ + 1) > slots_.size()) grow_slots();
  slots_[slot_of(s, edge(index).token)] = {s, index};
  ++n_slots_taken_;
}

void SuffixAutomaton::grow_slots() {
  std::vector<Slot> old(slots_.empty() ? 64 : 2 * slots_.size());
  std::swap(old, slots_);
  for (const Slot& slot : old) {
    if (slot.state != kNone) slots_[slot_of(slot.state, edge(slot.edge).token)] = slot;
  }
}

}  // namespace edge
