#include "speculation/controller.h"

#include <vector>

#include "doctest/doctest.h"
#include "draw.h"
#include "simulation.h"
#include "speculation/echoes.h"
#include "speculation/patience.h"

namespace edge {
namespace {

using test::Draw;
using test::simulate;
using test::Simulated;
using test::usual_cost;

constexpr size_t kTokens = 3000;
const std::vector<float> kSure(15, 0.9F);

Simulated run(std::span<const int32_t> text, const test::StepCost& cost, size_t n_prompt = 1) {
  SharedSpeculation shared({.n_vocab = 50000});
  SequenceSpeculation drafts(shared);
  return simulate(drafts, text, n_prompt, cost);
}

// A passage again and again.
std::vector<int32_t> copied(Draw& draw, size_t n_passage, size_t n_tokens) {
  const auto passage = draw.text(n_passage, 50000);
  std::vector<int32_t> text;
  while (text.size() < n_tokens) text.push_back(passage[text.size() % n_passage]);
  return text;
}

// Begins what was written before and breaks off, so that long repeats promise what does not come.
std::vector<int32_t> broken_promises(Draw& draw, size_t n_tokens) {
  std::vector<int32_t> text = draw.text(200, 50000);
  while (text.size() < n_tokens) {
    const size_t from = static_cast<size_t>(draw.below(150));
    const int32_t n = 1 + draw.below(8);
    for (int32_t i = 0; i < n; ++i) text.push_back(text[from + static_cast<size_t>(i)]);
    text.push_back(draw.below(50000));
  }
  return text;
}

double steep_cost(int n_rows, int64_t) { return 40.0 * n_rows; }
double noisy_cost(int n_rows, int64_t step) {
  Draw draw(static_cast<uint64_t>(step) + 17);
  return usual_cost(n_rows, step) * (0.7 + 0.6 * draw.unit());
}

TEST_CASE("text that repeats nothing is never slowed by more than one percent") {
  Draw draw(1);
  for (const int32_t n_vocab : {2, 3, 8, 40, 300, 50000}) {
    const auto text = draw.text(kTokens, n_vocab);
    CAPTURE(n_vocab);
    CHECK(run(text, usual_cost).speed() > 0.99);
    CHECK(run(text, steep_cost).speed() > 0.99);
    CHECK(run(text, noisy_cost).speed() > 0.98);  // the noise itself is a percent
  }
}

TEST_CASE("text that keeps breaking off what it repeats is never slowed by more than one percent") {
  Draw draw(2);
  const auto text = broken_promises(draw, kTokens);
  CHECK(run(text, usual_cost).speed() > 0.99);
  CHECK(run(text, steep_cost).speed() > 0.99);
}

TEST_CASE("copies go several tokens a step, unless steps cost what their tokens do") {
  Draw draw(3);
  const auto text = copied(draw, 300, kTokens);
  const Simulated usual = run(text, usual_cost, 300);
  CHECK(usual.speed() > 3.5);
  CHECK(run(text, noisy_cost, 300).speed() > 3.0);
  CHECK(run(text, steep_cost, 300).speed() > 0.99);
}

TEST_CASE("mixtures gain on what is copied and lose nothing on the rest") {
  Draw draw(4);
  const auto passage = draw.text(400, 50000);
  std::vector<int32_t> text = passage;
  for (int block = 0; block < 8; ++block) {
    const auto fresh = draw.text(100, 50000);
    text.insert(text.end(), fresh.begin(), fresh.end());
    text.insert(text.end(), passage.begin() + 50 * block, passage.begin() + 50 * block + 50);
  }
  // A third is copied; at 4 tokens a step that leaves 3/4 of the time.
  CHECK(run(text, usual_cost, passage.size()).speed() > 1.15);
}

TEST_CASE("when steps change what they take, drafting stops and comes back") {
  Draw draw(5);
  const auto text = copied(draw, 100, 9000);
  // Other work keeps the cores busy in the middle third of the steps.
  const auto cost = [](int n_rows, int64_t step) {
    return step >= 400 && step < 1600 ? 40.0 * n_rows : usual_cost(n_rows, step);
  };
  SharedSpeculation shared({.n_vocab = 50000});
  SequenceSpeculation drafts(shared);
  const Simulated all = simulate(drafts, text, 100, cost);
  REQUIRE(all.n_steps > 1400);
  CHECK(all.speed() > 1.5);
  // At the end it drafts as it did at the beginning.
  const Simulated end = simulate(drafts, text, text.size() - 500, usual_cost);
  CHECK(end.speed() > 3.0);
}

TEST_CASE("the same inputs choose the same trees") {
  Draw draw(6);
  const auto text = broken_promises(draw, 1000);
  CHECK(run(text, noisy_cost).drafted == run(text, noisy_cost).drafted);
}

TEST_CASE("the first step is plain, and one in every 32 after it") {
  Controller controller;
  CHECK(controller.choose({.gains = kSure}) == 0);
  controller.record({.ms = 40.0});
  for (int i = 0; i < Controller::kPlainEvery; ++i) {
    const int n = controller.choose({.gains = kSure});
    CHECK(n > 0);
    controller.record({.n_drafted = n, .n_committed = n, .ms = usual_cost(n + 1, 0)});
  }
  CHECK(controller.choose({.gains = kSure}) == 0);
  CHECK(controller.saved_ms() > 0.0);
}

TEST_CASE("a size of step that nobody timed is taken for more than ten percent only") {
  Controller controller(CostTable({.unpack = 0.0, .mac = 0.5}));  // t(2) = t(1)
  controller.record({.ms = 40.0});
  CHECK(controller.choose({.gains = std::vector<float>{0.09F}}) == 0);
  CHECK(controller.choose({.gains = std::vector<float>{0.12F}}) == 1);
  controller.record({.n_drafted = 1, .n_committed = 2, .ms = 40.0});
  CHECK(controller.choose({.gains = std::vector<float>{0.09F}}) == 1);
  CHECK(controller.choose({.gains = std::vector<float>{0.01F}}) == 0);
}

TEST_CASE("losing, it rests, and longer each time") {
  Controller controller;
  Patience patience;
  controller.record({.ms = 40.0});
  int last = 0;
  for (int round = 0; round < 4; ++round) {
    for (int n_drafting = 0; !patience.is_resting(); ++n_drafting) {
      REQUIRE(n_drafting < 1000);
      const int n = controller.choose({.gains = kSure});
      // Nothing of it comes true.
      patience.count(
          controller.record({.n_drafted = n, .n_committed = 1, .ms = usual_cost(n + 1, 0)}));
    }
    int n_resting = 0;
    while (patience.rest_on(0)) ++n_resting;
    CHECK(n_resting >= Patience::kFirstRest - 1);
    CHECK(n_resting > last);
    last = n_resting;
  }
  CHECK(controller.saved_ms() < 0.0);
}

TEST_CASE("a rest ends where the text repeats, and sooner where that was worth it") {
  Patience patience;
  const auto lose = [&] {
    for (int i = 0; !patience.is_resting(); ++i) {
      REQUIRE(i < 100);
      patience.count(-0.3);
    }
  };
  lose();
  CHECK(patience.rest_on(Patience::kFirstEcho - 1));
  CHECK_FALSE(patience.rest_on(Patience::kFirstEcho));
  CHECK_FALSE(patience.is_resting());
  lose();  // it promised too much
  CHECK(patience.rest_on(Patience::kFirstEcho));
  CHECK_FALSE(patience.rest_on(2 * Patience::kFirstEcho));
  for (int i = 0; i < 20; ++i) patience.count(0.5);
  lose();
  CHECK_FALSE(patience.rest_on(Patience::kFirstEcho));
}

TEST_CASE("no step is to lose more than is left to lose") {
  Controller controller(CostTable({.unpack = 0.75, .mac = 0.25}));  // a row more: a quarter
  for (int n = 15; n >= 0; --n) {
    controller.record({.n_drafted = n, .n_committed = n + 1, .ms = 20.0 + 5.0 * n});
  }
  CHECK(controller.choose({.gains = kSure}) == 15);
  CHECK(controller.choose({.gains = kSure, .most_lost = 1.6}) == 6);
  CHECK(controller.choose({.gains = kSure, .most_lost = 0.2}) == 0);
  Patience patience;
  CHECK(patience.credit() == Patience::kMostBehind);
  patience.count(2.0);
  CHECK(patience.credit() == 2.0 + Patience::kMostBehind);
  patience.begin_text();
  CHECK(patience.credit() == Patience::kMostBehind);
}

TEST_CASE("no time, however long, makes a rest longer than the longest") {
  Patience patience;
  patience.count(-1e300);
  int n_resting = 0;
  while (patience.rest_on(0)) ++n_resting;
  CHECK(n_resting == Patience::kLongestRest - 1);
}

TEST_CASE("an echo is a token that stood behind the same three before") {
  Echoes echoes;
  Draw draw(8);
  const auto text = draw.text(400, 50000);
  int n_echoed = echoes.hear(text, text.size(), 0);
  CHECK(n_echoed == 0);
  std::vector<int32_t> again = text;
  for (size_t i = 0; i < 20; ++i) {
    again.push_back(text[100 + i]);
    n_echoed = echoes.hear(again, 1, n_echoed);
    CHECK(n_echoed == (i < 3 ? 0 : static_cast<int>(i) - 2));
  }
  again.push_back(50001);
  CHECK(echoes.hear(again, 1, n_echoed) == 0);
  // Of another text it is one, too, and all at once is as one by one.
  CHECK(echoes.hear(std::span(text).first(30), 30, 0) == 27);
  CHECK(echoes.hear(std::span(text).first(2), 2, 5) == 5);
}

TEST_CASE("what drafting itself takes puts it to rest where it brings nothing") {
  Draw draw(9);
  const auto text = draw.text(kTokens, 50000);
  SharedSpeculation shared({.n_vocab = 50000});
  SequenceSpeculation drafts(shared);
  int64_t n_awake = 0;
  for (size_t at = 1; at < text.size(); ++at) {
    if (drafts.rests(std::span(text).first(at), 1)) {
      drafts.record_rest(0, 0.1);
      continue;
    }
    ++n_awake;
    drafts.propose(std::span(text).first(at), {});
    drafts.record_step(1, 0.1, 0.005);
  }
  // A plain step's worth before each rest, and those are 64 steps, 128..
  CHECK(n_awake > 20);
  CHECK(static_cast<double>(n_awake) * 0.005 < 0.01 * 0.1 * static_cast<double>(kTokens));
}

TEST_CASE("at rest, a text that begins to copy is drafted again, and what was written meanwhile") {
  Draw draw(10);
  std::vector<int32_t> text = draw.text(2000, 50000);
  SharedSpeculation shared({.n_vocab = 50000});
  SequenceSpeculation drafts(shared);
  for (int i = 0; i < 3; ++i) text.insert(text.end(), text.begin() + 300, text.begin() + 600);
  shared.controller().record({.ms = 1.0});
  drafts.record_step(1, 1.0, 1e9);  // sends it to the longest rest
  const Simulated done = simulate(drafts, text, 1, usual_cost);
  CHECK(done.n_rests > 1900);
  CHECK(done.n_steps < 2900 - 400);
}

TEST_CASE("a latency budget keeps slow steps inside, by fewer rows, and says so") {
  const auto largest = [](double budget_ms) {
    SharedSpeculation shared({.n_vocab = 50000});
    SequenceSpeculation drafts(shared);
    Draw draw(7);
    const auto text = copied(draw, 100, 4000);
    int most_rows = 0;
    int64_t n_late = 0;
    const auto cost = [&](int n_rows, int64_t step) {
      const double ms = usual_cost(n_rows, 0) * (step % 7 == 0 ? 1.2 : 1.0);
      if (step >= 0) most_rows = std::max(most_rows, n_rows);
      if (budget_ms > 0.0 && ms > budget_ms) ++n_late;
      return ms;
    };
    const Simulated done = simulate(drafts, text, 100, cost, {.budget_ms = budget_ms});
    CHECK(n_late <= done.n_steps / 20 + 2);
    CHECK((shared.controller().n_capped() > 0) == (budget_ms > 0.0));
    return most_rows;
  };
  const int of_60 = largest(60.0);
  const int of_50 = largest(50.0);
  CHECK(largest(0.0) > of_60);
  CHECK(of_60 > of_50);
  CHECK(of_50 >= 1);
}

TEST_CASE("rows of other sequences make further ones dearer") {
  const std::vector<float> gains(15, 0.5F);
  Controller controller(CostTable({.unpack = 0.2, .mac = 0.1}));
  for (const int n_others : {0, 7}) controller.record({.n_other_rows = n_others, .ms = 40.0});
  const int alone = controller.choose({.gains = gains});
  CHECK(alone > 0);
  CHECK(controller.choose({.gains = gains, .n_other_rows = 7}) < alone);
}

}  // namespace
}  // namespace edge
