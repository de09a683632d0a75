#include "speculation/speculation.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/race.h"
#include "doctest/doctest.h"
#include "draw.h"
#include "simulation.h"

namespace edge {
namespace {

using test::Draw;
using test::simulate;
using test::Simulated;
using test::time_all_sizes;
using test::usual_cost;

constexpr auto at_kind = [](const DraftCountsByKind& counts, DrafterKind kind) {
  return counts[static_cast<size_t>(kind)];
};

// Knows what comes, or says it does.
class Oracle : public Drafter {
 public:
  Oracle(std::span<const int32_t> text, const Acceptance& acceptance, bool is_right, int& n_asked)
      : text_(text), acceptance_(acceptance), is_right_(is_right), n_asked_(n_asked) {}
  DrafterKind kind() const override { return DrafterKind::kHead; }
  void propose(const DraftContext& context, Candidates& out) override {
    ++n_asked_;
    int parent = -1;
    const size_t n = context.tokens.size();
    for (size_t i = n; i < std::min(n + 3, text_.size()); ++i) {
      const int32_t id = is_right_ ? text_[i] : 77777;
      const float p = acceptance_.probability(kind(), 0, 0.5);
      parent = out.add({id, parent, p, kind(), 0});
    }
  }
  void observe(const DraftObservation&) override {}
  void rewind(std::span<const int32_t>) override {}
  size_t memory_bytes() const override { return 0; }
  double propose_ms() const override { return 4.0; }

 private:
  std::span<const int32_t> text_;
  const Acceptance& acceptance_;
  bool is_right_;
  int& n_asked_;
};

TEST_CASE("what a sequence wrote is drafted when it begins again, and counted") {
  SharedSpeculation shared({.n_vocab = 1000});
  SequenceSpeculation drafts(shared);
  std::vector<int32_t> text;
  for (int i = 0; i < 600; ++i) text.push_back(i % 50);
  const Simulated done = simulate(drafts, text, 50, usual_cost);
  const DraftCounts suffix = at_kind(drafts.counts(), DrafterKind::kSuffix);
  CHECK(suffix.accepted > 300);
  CHECK(suffix.drafted >= suffix.accepted);
  // Each step gives one token that was not drafted.
  int64_t n_accepted = 0;
  for (const DraftCounts& counts : drafts.counts()) n_accepted += counts.accepted;
  CHECK(n_accepted + done.n_steps >= 550);
  CHECK(n_accepted + done.n_steps <= 551);
}

TEST_CASE("where tokens are drawn, what is known of the draws says which of the usual ones comes") {
  constexpr uint64_t kSeed = 9;
  const std::vector<double> weights{1, 0.6, 0.4};
  std::vector<int32_t> text{0};
  while (text.size() < 3000) {
    std::vector<int32_t> followers;
    for (int32_t i = 1; i <= 3; ++i) followers.push_back((text.back() * 3 + i * i) % 40);
    const Runners runners{.weights = weights, .ids = followers, .mass = 2};
    text.push_back(followers[race(runners, kSeed, text.size())]);
  }
  std::vector<double> speeds;
  for (const bool is_known : {false, true}) {
    SharedSpeculation shared({.n_vocab = 40});
    time_all_sizes(shared);
    SequenceSpeculation drafts(shared);
    const std::optional<uint64_t> drawn = is_known ? std::optional(kSeed) : std::nullopt;
    speeds.push_back(simulate(drafts, text, 200, usual_cost, {}, drawn).speed());
  }
  CHECK(speeds[1] > 1.1 * speeds[0]);
}

TEST_CASE("texts of sequences that ended are drafted from") {
  Draw draw(1);
  const auto text = draw.text(500, 50000);
  SharedSpeculation shared({.n_vocab = 50000});
  shared.keep_text(text);
  SequenceSpeculation drafts(shared);
  CHECK(simulate(drafts, text, 20, usual_cost).speed() > 2.5);
  CHECK(at_kind(drafts.counts(), DrafterKind::kStore).accepted > 300);
}

TEST_CASE("where steps take next to no time, only what repeats is drafted") {
  SharedSpeculation shared({.n_vocab = 50000});
  for (int i = 0; i < 20; ++i) shared.controller().record({.ms = 0.2});
  Draw draw(5);
  std::vector<int32_t> text = draw.text(500, 50000);
  const auto cost = [](int n_rows, int64_t step) { return usual_cost(n_rows, step) / 200; };
  SequenceSpeculation drafts(shared);
  CHECK(drafts.is_resting());
  CHECK(simulate(drafts, text, 20, cost).n_rests == 480);
  text.insert(text.end(), text.begin(), text.begin() + 300);
  SequenceSpeculation again(shared);
  const Simulated done = simulate(again, text, 20, cost);
  CHECK(done.speed() > 1.15);
  int n_asked = 0;
  SequenceSpeculation other(shared);
  other.add(std::make_unique<Oracle>(text, other.acceptance(), true, n_asked));
  CHECK(other.is_resting());
}

TEST_CASE("texts that wait to be drafted from are found once they are wanted, the last ones") {
  Draw draw(4);
  TextStore store(1 << 20);
  const auto text = draw.text(1000, 50000);
  const auto n_matched = [&] {
    TextStore::Cursor cursor;
    for (const int32_t token : std::span(text).first(20)) store.advance(cursor, token);
    return store.match(cursor).match.length;
  };
  const size_t n_bytes = store.memory_bytes();
  store.add_later(text);
  CHECK(n_matched() == 0);
  store.add_waiting();
  CHECK(n_matched() == 20);
  TextStore other(1 << 20);
  std::swap(store, other);
  store.add_later(text);
  for (int i = 0; i < 5; ++i) store.add_later(draw.text(1000, 50000));
  store.add_later(draw.text(100000, 50000));
  CHECK(store.memory_bytes() == n_bytes);
  store.add_waiting();
  CHECK(n_matched() == 0);
}

TEST_CASE("the likeliest followers by the logits are drafted when their token comes again") {
  RecyclingTable table(1 << 20, 1000);
  SharedAcceptance shared;
  const Acceptance acceptance(shared);
  RecyclingDrafter drafter(table, acceptance);
  const std::vector<int32_t> after_7 = {8, 9, 10};
  const std::vector<int32_t> after_8 = {20, 21};
  const std::vector<int32_t> text = {5, 6, 7};
  const TopRow rows[] = {{7, after_7}, {8, after_8}};
  drafter.observe({.tokens = text, .n_new = 3, .rows = rows});
  Candidates candidates;
  drafter.propose({.tokens = text}, candidates);
  const int first = candidates.child(-1, 8);
  CHECK(first == 0);
  CHECK(candidates.child(-1, 9) == 1);
  CHECK(candidates.child(-1, 10) == 2);
  CHECK(candidates.child(first, 20) > 2);
  CHECK(candidates[first].probability > candidates[1].probability);
  candidates.clear();
  drafter.propose({.tokens = text, .max_depth = 1}, candidates);
  CHECK(candidates.size() == 3);
}

TEST_CASE("followers of a token: those seen come first, an entry gives way to another") {
  RecyclingTable table(4 * 40, 1000);
  const std::vector<int32_t> many = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  table.set(3, many);
  REQUIRE(table.find(3) != nullptr);
  CHECK(*table.find(3) == RecyclingTable::Followers{1, 2, 3, 4, 5, 6, 7, 8});
  table.promote(3, 4);
  CHECK(*table.find(3) == RecyclingTable::Followers{4, 1, 2, 3, 5, 6, 7, 8});
  table.promote(3, 99);
  CHECK(*table.find(3) == RecyclingTable::Followers{99, 4, 1, 2, 3, 5, 6, 7});
  for (int32_t token = 4; token < 40; ++token) table.promote(token, 1);
  CHECK(table.find(3) == nullptr);
  CHECK(table.memory_bytes() <= 4 * 40);
}

TEST_CASE("a drafter that costs time is asked while it is right, and hardly when it is not") {
  Draw draw(2);
  const auto text = draw.text(2000, 50000);
  for (const bool is_right : {true, false}) {
    CAPTURE(is_right);
    SharedSpeculation shared({.n_vocab = 50000});
    SequenceSpeculation drafts(shared);
    int n_asked = 0;
    drafts.add(std::make_unique<Oracle>(text, drafts.acceptance(), is_right, n_asked));
    double draft_ms = 0.0;
    int n_before = 0;
    const auto cost = [&](int n_rows, int64_t step) {
      if (n_asked > n_before) draft_ms += 4.0;
      n_before = n_asked;
      return usual_cost(n_rows, step);
    };
    const Simulated done = simulate(drafts, text, 1, cost);
    const double speed = done.plain_ms / (done.ms + draft_ms);
    if (is_right) {
      CHECK(speed > 2.0);
      CHECK(n_asked > done.n_steps / 2);
    } else {
      CHECK(speed > 0.99);
      CHECK(n_asked < 100);
    }
  }
}

// Takes what it is told, and nothing yet before it was asked.
class Listener : public Drafter {
 public:
  explicit Listener(size_t& n_heard) : n_heard_(n_heard) {}
  DrafterKind kind() const override { return DrafterKind::kHead; }
  void propose(const DraftContext&, Candidates&) override {}
  void observe(const DraftObservation& observation) override {
    n_heard_ = std::max(n_heard_, observation.hidden.size());
    CHECK(observation.n_new == observation.tokens.size());
  }
  void rewind(std::span<const int32_t>) override {}
  size_t memory_bytes() const override { return 0; }
  bool wants_hidden() const override { return true; }

 private:
  size_t& n_heard_;
};

TEST_CASE("a drafter that was added gets a prompt as it came, hidden states and all") {
  SharedSpeculation shared({.n_vocab = 100});
  SequenceSpeculation drafts(shared);
  CHECK_FALSE(drafts.wants_hidden());
  size_t n_heard = 0;
  drafts.add(std::make_unique<Listener>(n_heard));
  CHECK(drafts.wants_hidden());
  const std::vector<int32_t> text(40, 7);
  const std::vector<float> hidden(40 * 4);
  drafts.observe({.tokens = text, .n_new = text.size(), .hidden = hidden});
  CHECK(n_heard == hidden.size());
}

TEST_CASE("what is cut off a tree was not drafted") {
  SharedSpeculation shared({.n_vocab = 1000});
  time_all_sizes(shared);
  SequenceSpeculation drafts(shared);
  std::vector<int32_t> text;
  for (int i = 0; i < 100; ++i) text.push_back(i % 10);
  drafts.observe({.tokens = text, .n_new = text.size()});
  const TokenTree& tree = drafts.propose(text, {});
  REQUIRE(tree.size() > 2);
  drafts.cut(2);
  CHECK(tree.size() == 2);
  int64_t n_drafted = 0;
  for (const DraftCounts& counts : drafts.counts()) n_drafted += counts.drafted;
  CHECK(n_drafted == 2);
}

TEST_CASE("tokens may be made known one by one; what was proposed is judged all the same") {
  std::vector<int32_t> text;
  for (int i = 0; i < 120; ++i) text.push_back(i % 10);
  const auto accepted = [&](bool one_by_one) {
    SharedSpeculation shared({.n_vocab = 1000});
    time_all_sizes(shared);
    SequenceSpeculation drafts(shared);
    const std::span<const int32_t> all(text);
    drafts.observe({.tokens = all.first(100), .n_new = 100});
    drafts.propose(all.first(100), {});
    for (size_t n = 101; n <= 104 && one_by_one; ++n) {
      drafts.observe({.tokens = all.first(n), .n_new = 1});
    }
    if (!one_by_one) drafts.observe({.tokens = all.first(104), .n_new = 4});
    return at_kind(drafts.counts(), DrafterKind::kSuffix).accepted;
  };
  CHECK(accepted(true) > 0);
  CHECK(accepted(true) == accepted(false));
}

TEST_CASE("after tokens are taken back, drafts follow those that stay") {
  SharedSpeculation shared({.n_vocab = 1000});
  time_all_sizes(shared);
  SequenceSpeculation drafts(shared);
  std::vector<int32_t> text;
  for (int i = 0; i < 60; ++i) text.push_back(i % 20);
  drafts.observe({.tokens = text, .n_new = text.size()});
  text.resize(45);  // ends with 4
  drafts.rewind(text);
  const TokenTree& tree = drafts.propose(text, {});
  REQUIRE_FALSE(tree.empty());
  CHECK(tree[0].id == 5);
  drafts.rewind({});
  const std::vector<int32_t> other = {500};
  drafts.observe({.tokens = other, .n_new = 1});
  CHECK(drafts.propose(other, {}).empty());
}

TEST_CASE("all drafters together stay within what they were given") {
  Draw draw(3);
  constexpr size_t kMemory = 1 << 20;
  SharedSpeculation shared({.memory_bytes = kMemory, .n_vocab = 128256, .max_sequences = 2});
  for (int round = 0; round < 6; ++round) {
    SequenceSpeculation a(shared);
    SequenceSpeculation b(shared);
    const auto text = draw.text(6000, round % 2 == 0 ? 128256 : 20);
    a.observe({.tokens = text, .n_new = text.size()});
    b.observe({.tokens = text, .n_new = text.size()});
    CHECK(shared.memory_bytes() + a.memory_bytes() + b.memory_bytes() <= kMemory);
    shared.keep_text(text);
  }
  CHECK(SharedSpeculation::memory_for(100 << 20) == size_t{16} << 20);
  CHECK(SharedSpeculation::memory_for(size_t{1000} << 20) == (size_t{1000} << 20) / 100 * 3);
}

}  // namespace
}  // namespace edge
