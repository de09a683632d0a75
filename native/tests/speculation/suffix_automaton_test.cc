#include "speculation/suffix_automaton.h"

#include <algorithm>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "doctest/doctest.h"
#include "draw.h"
#include "speculation/text_generations.h"

namespace edge {
namespace {

using test::Draw;
using Texts = std::vector<std::vector<int32_t>>;

// What followed each place of the texts where `end` stands.
std::set<int32_t> followers(const Texts& texts, std::span<const int32_t> end) {
  std::set<int32_t> found;
  for (const auto& text : texts) {
    for (size_t at = 0; at + end.size() < text.size(); ++at) {
      if (std::equal(end.begin(), end.end(), text.begin() + static_cast<std::ptrdiff_t>(at))) {
        found.insert(text[at + end.size()]);
      }
    }
  }
  return found;
}

// The longest end of `text` that something followed.
size_t longest_followed(const Texts& texts, std::span<const int32_t> text) {
  size_t n = text.size();
  while (n > 0 && followers(texts, text.last(n)).empty()) --n;
  return n;
}

std::set<int32_t> edges_of(const SuffixAutomaton& automaton, int32_t state) {
  std::set<int32_t> found;
  for (int32_t e = automaton.first_edge(state); e != SuffixAutomaton::kNone;
       e = automaton.edge(e).next) {
    CHECK(found.insert(automaton.edge(e).token).second);
  }
  return found;
}

void check_match(const SuffixAutomaton& automaton, SuffixAutomaton::Match match, const Texts& texts,
                 std::span<const int32_t> text) {
  const size_t n = longest_followed(texts, text);
  REQUIRE(match.length == static_cast<int32_t>(n));
  CHECK(edges_of(automaton, match.state) == followers(texts, text.last(n)));
}

TEST_CASE("a growing text's end is found wherever it stood before, with all that followed") {
  for (const int32_t n_vocab : {1, 2, 3, 12, 40}) {
    Draw draw(static_cast<uint64_t>(n_vocab));
    const auto whole = draw.text(160, n_vocab);
    SuffixAutomaton automaton;
    for (size_t n = 1; n <= whole.size(); ++n) {
      automaton.extend(whole[n - 1]);
      const std::vector<int32_t> text(whole.begin(),
                                      whole.begin() + static_cast<std::ptrdiff_t>(n));
      check_match(automaton, automaton.end_match(), {text}, text);
    }
  }
}

TEST_CASE("several texts are searched from another one, also while they are added") {
  Draw draw(7);
  const auto searching = draw.text(300, 3);
  Texts texts;
  SuffixAutomaton automaton;
  SuffixAutomaton::Match match;
  for (size_t n = 1; n <= searching.size(); ++n) {
    if (n % 40 == 1) {
      texts.push_back(draw.text(60, 3));
      automaton.start_text();
      for (const int32_t token : texts.back()) automaton.extend(token);
      // What was added behind its back may make the match longer; it need not be found, but what is
      // found must be right. From here on both begin at nothing.
      match = {};
      for (size_t i = 0; i + 1 < n; ++i) match = automaton.advance(match, searching[i]);
    }
    match = automaton.advance(match, searching[n - 1]);
    check_match(automaton, automaton.followed(match), texts, std::span(searching).first(n));
  }
}

TEST_CASE("a match made before texts were added says nothing wrong after") {
  Draw draw(11);
  SuffixAutomaton automaton;
  Texts texts;
  std::vector<int32_t> searching;
  SuffixAutomaton::Match match;
  for (int round = 0; round < 60; ++round) {
    texts.push_back(draw.text(12, 2));
    automaton.start_text();
    for (const int32_t token : texts.back()) automaton.extend(token);
    searching.push_back(draw.below(2));
    match = automaton.advance(match, searching.back());
    const auto end = std::span(searching).last(static_cast<size_t>(match.length));
    const bool stands_somewhere = std::any_of(texts.begin(), texts.end(), [&](const auto& text) {
      return std::search(text.begin(), text.end(), end.begin(), end.end()) != text.end();
    });
    CHECK(stands_somewhere);
  }
}

TEST_CASE("what followed last comes first") {
  SuffixAutomaton automaton;
  for (const int32_t token : {1, 2, 1, 3, 1, 4, 1, 2, 5, 1}) automaton.extend(token);
  std::vector<int32_t> order;
  for (int32_t e = automaton.first_edge(automaton.end_match().state); e != SuffixAutomaton::kNone;
       e = automaton.edge(e).next) {
    order.push_back(automaton.edge(e).token);
  }
  CHECK(automaton.end_match().length == 1);
  CHECK(order == std::vector<int32_t>{2, 4, 3});
}

TEST_CASE("a text grows by at most 2 states and 3 edges a token") {
  Draw draw(3);
  Texts texts = {draw.text(5000, 50000), draw.text(5000, 2), std::vector<int32_t>(5000, 9)};
  texts.emplace_back();
  for (int32_t i = 0; i < 5000; ++i) texts.back().push_back(i % 100 == 0 ? i : i % 100);
  for (const auto& text : texts) {
    SuffixAutomaton automaton;
    for (const int32_t token : text) automaton.extend(token);
    // 16 bytes each; edges of states with many are in a hash table, too.
    CHECK(automaton.used_bytes() <= text.size() * (2 * 16 + 3 * 16 + 4 * 8) + 1024);
    CHECK(automaton.memory_bytes() <= automaton.used_bytes() * 3 / 2 + 1024);
  }
}

TEST_CASE("texts stay within their memory, whatever they are") {
  constexpr size_t kMemory = 96 << 10;
  Draw draw(5);
  for (const int32_t n_vocab : {1, 2, 50000}) {
    OwnText text(kMemory);
    TextStore store(kMemory);
    for (int i = 0; i < 20; ++i) {
      const auto tokens = draw.text(1000, n_vocab);
      for (const int32_t token : tokens) text.extend(token);
      store.add(tokens);
      CHECK(text.memory_bytes() <= kMemory);
      CHECK(store.memory_bytes() <= kMemory);
    }
  }
}

TEST_CASE("the end of a text is found again across generations") {
  Draw draw(6);
  const auto passage = draw.text(50, 1000);
  // A generation has some 250 tokens here.
  for (const auto& [n_between, is_known] : {std::pair{20, true}, {300, true}, {1000, false}}) {
    CAPTURE(n_between);
    OwnText text(64 << 10);
    for (const int32_t token : passage) text.extend(token);
    for (int i = 0; i < n_between; ++i) text.extend(5000 + i);
    for (size_t i = 0; i < 20; ++i) text.extend(passage[i]);
    const TextMatch match = text.match();
    REQUIRE((match.automaton != nullptr) == is_known);
    if (!is_known) continue;
    CHECK(match.match.length == 20);
    CHECK(edges_of(*match.automaton, match.match.state) == std::set<int32_t>{passage[20]});
  }
}

TEST_CASE("a text that is taken back goes on as if it had not been, and is remembered") {
  Draw draw(8);
  const auto first = draw.text(80, 4);
  const auto other = draw.text(80, 4);
  for (const size_t n_stay : {size_t{0}, size_t{1}, size_t{40}, size_t{80}}) {
    OwnText text(1 << 20);
    for (const int32_t token : first) text.extend(token);
    const auto stay = std::span(first).first(n_stay);
    text.rewind(stay);
    CHECK(text.n_tokens() == n_stay);
    std::vector<int32_t> now(stay.begin(), stay.end());
    for (const int32_t token : other) {
      text.extend(token);
      now.push_back(token);
      const TextMatch found = text.match();
      const size_t n = longest_followed({first, now}, now);
      if (n == 0) continue;
      REQUIRE(found.automaton != nullptr);
      CHECK(found.match.length == static_cast<int32_t>(n));
      CHECK(edges_of(*found.automaton, found.match.state) ==
            followers({first, now}, std::span(now).last(n)));
    }
  }
}

TEST_CASE("cursors keep up with a store that forgets") {
  Draw draw(9);
  TextStore store(128 << 10);
  TextStore::Cursor cursor;
  for (int round = 0; round < 40; ++round) {
    const auto text = draw.text(200, 500);
    store.add(text);
    for (size_t i = 180; i < 190; ++i) store.advance(cursor, text[i]);
    const TextMatch match = store.match(cursor);
    REQUIRE(match.automaton != nullptr);
    CHECK(match.match.length >= 2);
    CHECK(edges_of(*match.automaton, match.match.state).contains(text[190]));
  }
}

}  // namespace
}  // namespace edge
