#include "speculation/text_generations.h"

#include <algorithm>
#include <utility>

namespace edge {

namespace {

constexpr int32_t kEnd = -1;  // of a text that waits

// The longer match; the younger of equal ones.
TextMatch longer_match(const SuffixAutomaton& young, SuffixAutomaton::Match in_young,
                       const SuffixAutomaton& old, SuffixAutomaton::Match in_old) {
  in_young = young.followed(in_young);
  in_old = old.followed(in_old);
  if (in_young.length == 0 && in_old.length == 0) return {};
  return in_young.length >= in_old.length ? TextMatch{&young, in_young} : TextMatch{&old, in_old};
}

// With its room to grow and a hash table just doubled a full one has half of memory_bytes.
bool is_full(const SuffixAutomaton& young, size_t memory_bytes) {
  return young.used_bytes() >= memory_bytes / 7 * 2;
}

}  // namespace

void OwnText::extend(int32_t token) {
  if (is_full(young_, memory_bytes_)) {
    old_match_ = young_.end_match();
    std::swap(old_, young_);
    young_.clear();
    young_from_ = n_tokens_;
  }
  young_.extend(token);
  old_match_ = old_.advance(old_match_, token);
  ++n_tokens_;
}

void OwnText::rewind(std::span<const int32_t> tokens) {
  // More than any match that would be believed differently were it longer.
  static constexpr size_t kSearchedTokens = 64;
  n_tokens_ = tokens.size();
  if (n_tokens_ < young_from_) young_from_ = n_tokens_;
  if (!young_.resume(tokens.subspan(young_from_))) young_from_ = n_tokens_;
  old_match_ = {};
  for (const int32_t token : tokens.last(std::min(tokens.size(), kSearchedTokens))) {
    old_match_ = old_.advance(old_match_, token);
  }
}

TextMatch OwnText::match() const {
  return longer_match(young_, young_.end_match(), old_, old_match_);
}

void TextStore::add(std::span<const int32_t> text) {
  static constexpr size_t kBytesPerToken = 64;  // the least that tokens have been seen to take
  young_.start_text();
  for (const int32_t token : text.last(std::min(text.size(), memory_bytes_ / kBytesPerToken))) {
    if (is_full(young_, memory_bytes_)) {
      std::swap(old_, young_);
      young_.clear();
      ++generation_;
    }
    young_.extend(token);
  }
}

void TextStore::add_later(std::span<const int32_t> text) {
  text = text.last(std::min(text.size(), kMostWaiting - 1));
  while (waiting_.size() + text.size() + 1 > kMostWaiting) {
    waiting_.erase(waiting_.begin(), std::find(waiting_.begin(), waiting_.end(), kEnd) + 1);
  }
  waiting_.reserve(kMostWaiting);
  waiting_.insert(waiting_.end(), text.begin(), text.end());
  waiting_.push_back(kEnd);
}

void TextStore::add_waiting() {
  for (std::span<const int32_t> rest = waiting_; !rest.empty();) {
    const auto end = std::find(rest.begin(), rest.end(), kEnd);
    const auto n = static_cast<size_t>(end - rest.begin());
    add(rest.first(n));
    rest = rest.subspan(n + 1);
  }
  waiting_.clear();
}

void TextStore::keep_up(Cursor& cursor) const {
  if (cursor.generation == generation_) return;
  cursor.old = cursor.generation + 1 == generation_ ? cursor.young : SuffixAutomaton::Match{};
  cursor.young = {};
  cursor.generation = generation_;
}

void TextStore::advance(Cursor& cursor, int32_t token) const {
  keep_up(cursor);
  cursor.young = young_.advance(cursor.young, token);
  cursor.old = old_.advance(cursor.old, token);
}

TextMatch TextStore::match(const Cursor& cursor) const {
  Cursor now = cursor;
  keep_up(now);
  return longer_match(young_, now.young, old_, now.old);
}

}  // namespace edge
