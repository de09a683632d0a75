// Sessions with drafts, on a model made of hashes: whatever is drafted and whatever is done to the
// session, its counts, tokens and logits are those of one without.
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "doctest/doctest.h"
#include "draft_script.h"
#include "hash_model.h"
#include "runtime/lookahead.h"
#include "runtime/model_drafts.h"
#include "runtime/prefix_tree.h"
#include "runtime/session.h"
#include "runtime/top_ids.h"

namespace edge {
namespace {

using test::best_of;
using test::copy;
using test::DraftLog;
using test::DraftScript;
using test::HashModel;
using test::kVocab;
using test::random_ids;

struct Drafting {
  HashModel model;
  Batcher batcher{model};
  KvCache cache{model.groups(), UINT64_MAX};
  PrefixTree tree{cache, UINT64_MAX};
  std::shared_ptr<DraftLog> log = std::make_shared<DraftLog>();
  DraftScript script{log,
                     [this](std::span<const int32_t> ids) { return best_of(model.expected(ids)); }};

  explicit Drafting(std::vector<int> windows) : model(std::move(windows)) {}
  std::unique_ptr<Session> session(int n_ctx = 400, bool has_drafts = true) {
    auto made = Session::create(batcher, cache, {.n_ctx = n_ctx, .tree = &tree}).take();
    if (has_drafts) REQUIRE(made->set_drafts(script.fresh()).is_ok());
    return made;
  }
};

std::vector<int32_t> copy_ids(std::span<const int32_t> ids) { return {ids.begin(), ids.end()}; }

void run_all(Session& session) {
  while (session.n_pending() > 0) REQUIRE(session.run(1e9, nullptr).is_ok());
}

// The next n tokens, each after looking at the logits of the one before.
void generate(Session& session, const HashModel& model, int n) {
  for (int i = 0; i < n; ++i) {
    const std::vector<float> logits = copy(session.logits().value());
    REQUIRE(logits == model.expected(session.token_ids()));
    const int32_t next = best_of(logits);
    REQUIRE(session.append(std::span(&next, 1)).is_ok());
    run_all(session);
  }
}

TEST_CASE("drafts save steps and change neither tokens nor logits, with windows and without") {
  for (const std::vector<int>& windows : {std::vector<int>{0}, {0, 40}, {0, 7, 300}, {0, -3}}) {
    Drafting f(windows);
    const auto session = f.session();
    REQUIRE(session->append(random_ids(20, 1)).is_ok());
    run_all(*session);
    generate(*session, f.model, 180);
    const SessionStats stats = session->stats();
    CHECK(stats.n_steps < 150);
    CHECK(stats.n_prefill_tokens == 20);
    CHECK(stats.n_decode_tokens == 180);
    CHECK(f.model.n_moved_slots > 0);
    int64_t n_accepted = 0;
    for (const DraftCount& count : stats.drafts) {
      CHECK(count.n_accepted > 0);
      CHECK(count.n_drafted > count.n_accepted);
      n_accepted += count.n_accepted;
    }
    CHECK(stats.n_steps - 1 + n_accepted == 180);
    CHECK(f.log->n_cut == 0);
    CHECK(session->set_drafts(nullptr).is_ok());
    CHECK(f.log->n_steps == stats.n_steps - 1);
    CHECK(f.log->n_step_tokens == 180);
    CHECK(f.log->texts.back() == copy_ids(session->token_ids()));
    CHECK(f.log->n_wrong_tops == 0);
    CHECK(f.log->n_observed_rows > 180);
  }
}

TEST_CASE("a source knows how what comes will be drawn, from wherever its steps are counted") {
  for (const uint64_t first_step : {20ull, 0ull, 1000ull}) {
    Drafting f({0});
    int n_seen = 0;
    const auto session = f.session();
    REQUIRE(session->append(random_ids(20, 1)).is_ok());
    run_all(*session);
    const SamplerParams params{.temperature = 1.5, .seed = 11};
    f.log->sees_draws = [&](const ComingDraws* draws, size_t n_tokens) {
      REQUIRE(draws != nullptr);
      CHECK(draws->seed == params.seed);
      CHECK(draws->params->temperature == params.temperature);
      CHECK(draws->step == first_step + n_tokens - 20);  // of the token behind those
      ++n_seen;
    };
    for (uint64_t step = first_step; step < first_step + 30; ++step) {
      const int32_t next = sample(session->logits().value(), params, step).value().id;
      session->expect_draws(params, step);
      REQUIRE(session->append(std::span(&next, 1)).is_ok());
      run_all(*session);
    }
    CHECK(n_seen > 0);
    f.log->sees_draws = [](const ComingDraws* draws, size_t) { CHECK(draws == nullptr); };
    session->expect_draws({}, 0);  // greedy
    generate(*session, f.model, 10);
  }
}

TEST_CASE("a source that rests now and then is told all that came meanwhile") {
  for (const bool wants_hidden : {false, true}) {
    Drafting f({0, 40});
    f.log->wants_hidden = wants_hidden;
    f.log->hidden_after = [&](std::span<const int32_t> ids) { return f.model.expected(ids); };
    std::mt19937 random(3);
    f.log->rests = [&] { return random() % 3 != 0; };
    const auto session = f.session();
    REQUIRE(session->append(random_ids(20, 1)).is_ok());
    run_all(*session);
    generate(*session, f.model, 180);
    REQUIRE(session->rewind(100).is_ok());
    REQUIRE(session->append(random_ids(30, 2)).is_ok());
    run_all(*session);
    generate(*session, f.model, 60);
    const SessionStats stats = session->stats();
    CHECK(f.log->n_rests > 30);
    CHECK(stats.n_steps < 220);  // it drafts where it does not rest
    CHECK(session->set_drafts(nullptr).is_ok());
    CHECK(f.log->texts.back() == copy_ids(session->token_ids()));
    CHECK(f.log->n_wrong_tops == 0);
    CHECK(f.log->n_wrong_hidden == 0);
    CHECK((f.log->n_hidden > 0) == wants_hidden);
  }
}

TEST_CASE("a source hears the hidden state before every token that was computed here") {
  for (const std::vector<int>& windows : {std::vector<int>{0}, {0, 40}}) {
    Drafting f(windows);
    f.log->wants_hidden = true;
    f.log->hidden_after = [&](std::span<const int32_t> ids) { return f.model.expected(ids); };
    const auto session = f.session();
    REQUIRE(session->append(random_ids(100, 1)).is_ok());
    run_all(*session);
    generate(*session, f.model, 60);
    const int n_first = f.log->n_hidden;
    CHECK(n_first > 140);
    REQUIRE(session->rewind(130).is_ok());
    REQUIRE(session->append(random_ids(60, 2)).is_ok());
    run_all(*session);
    generate(*session, f.model, 30);
    CHECK(f.log->n_hidden > n_first + 75);
    const int n_second = f.log->n_hidden;
    const auto other = f.session();  // begins with KV that was computed elsewhere
    REQUIRE(other->append(copy_ids(session->token_ids())).is_ok());
    run_all(*other);
    generate(*other, f.model, 20);
    CHECK(f.log->n_hidden > n_second);
    CHECK(f.log->n_wrong_hidden == 0);
    CHECK(f.log->n_wrong_tops == 0);
  }
}

TEST_CASE("what sessions leave to others is the same with drafts as without") {
  Drafting f({0, 40});
  std::vector<int32_t> text;
  {
    const auto first = f.session();
    REQUIRE(first->append(random_ids(30, 2)).is_ok());
    run_all(*first);
    generate(*first, f.model, 100);
    text = copy_ids(first->token_ids());
  }
  text.push_back(3);
  for (const bool has_drafts : {false, true}) {
    const auto second = f.session(400, has_drafts);
    REQUIRE(second->append(text).is_ok());
    run_all(*second);
    CHECK(second->stats().n_reused_tokens >= 128);
    CHECK(copy(second->logits().value()) == f.model.expected(text));
    generate(*second, f.model, 40);
  }
}

TEST_CASE("whatever is done between the tokens, a session with drafts is one without") {
  for (const std::vector<int>& windows : {std::vector<int>{0}, {0, 40}, {0, -4}}) {
    Drafting f(windows);
    std::mt19937 random(7);
    std::unique_ptr<Session> drafting = f.session(), plain = f.session(400, false);
    const auto both = [&](const auto& act) {
      act(*drafting);
      act(*plain);
    };
    both([](Session& s) {
      REQUIRE(s.append(random_ids(33, 3)).is_ok());
      run_all(s);
    });
    for (int round = 0; round < 400; ++round) {
      const int n = plain->n_tokens();
      const auto pick = random() % 16;
      if (n > 300 || pick == 0) {
        const int n_kept =
            n - static_cast<int>(random() % static_cast<uint32_t>(std::min(n, n > 300 ? 250 : 20)));
        both([&](Session& s) { REQUIRE(s.rewind(n_kept).is_ok()); });
      } else if (pick == 1) {
        const auto ids = random_ids(1 + random() % 5, static_cast<uint32_t>(random()));
        both([&](Session& s) { REQUIRE(s.append(ids).is_ok()); });
      } else if (pick == 2) {
        both([](Session& s) {
          std::vector<float> all;
          REQUIRE(s.run(1e9, &all).is_ok());
        });
      } else if (pick == 3) {
        drafting = drafting->fork().take();
        plain = plain->fork().take();
      } else if (pick == 4) {
        both([](Session& s) { s.trim(1); });
      } else if (pick == 5) {
        f.model.n_steps_until_failure = 0;
        static_cast<void>(drafting->run(1e9, nullptr));
        f.model.n_steps_until_failure = -1;
      }
      both([](Session& s) { run_all(s); });
      if (!plain->logits().is_ok()) {
        const int32_t id = 4;
        both([&](Session& s) {
          REQUIRE(s.append(std::span(&id, 1)).is_ok());
          run_all(s);
        });
      }
      CHECK(std::ranges::equal(drafting->token_ids(), plain->token_ids()));
      REQUIRE(copy(drafting->logits().value()) == copy(plain->logits().value()));
      const int32_t next = best_of(plain->logits().value());
      both([&](Session& s) {
        REQUIRE(s.append(std::span(&next, 1)).is_ok());
        if (pick != 5) run_all(s);
      });
    }
    CHECK(f.log->n_step_tokens > f.log->n_steps);
  }
}

TEST_CASE(
    "a step's rows of drafts are shared by its sequences, and none is drafted with a prompt") {
  Drafting f({0, 40});
  std::vector<std::unique_ptr<Session>> sessions;
  for (uint32_t i = 0; i < 3; ++i) {
    sessions.push_back(f.session());
    REQUIRE(sessions.back()->append(random_ids(5 + 20 * i, i)).is_ok());
    run_all(*sessions.back());
  }
  f.model.step_rows.clear();
  std::vector<int> n_left(3, 60);
  while (std::ranges::any_of(n_left, [](int n) { return n > 0; })) {
    std::vector<Session::Run> runs;
    for (size_t i = 0; i < sessions.size(); ++i) {
      if (sessions[i]->n_pending() == 0 && n_left[i]-- > 0) {
        const std::vector<float> logits = copy(sessions[i]->logits().value());
        REQUIRE(logits == f.model.expected(sessions[i]->token_ids()));
        const int32_t next = best_of(logits);
        REQUIRE(sessions[i]->append(std::span(&next, 1)).is_ok());
      }
      runs.push_back({.session = sessions[i].get()});
    }
    Session::run_together(runs, 0);
    for (const Session::Run& run : runs) REQUIRE(run.status.is_ok());
  }
  CHECK(std::ranges::max(f.model.step_rows) == 16);
  CHECK(f.log->n_cut > 0);
  CHECK(f.model.step_rows.size() < 60);

  const int32_t next = best_of(sessions[0]->logits().value());
  REQUIRE(sessions[0]->append(std::span(&next, 1)).is_ok());
  REQUIRE(sessions[1]->append(random_ids(4, 9)).is_ok());
  std::vector<Session::Run> runs = {{.session = sessions[0].get()}, {.session = sessions[1].get()}};
  f.model.step_rows.clear();
  Session::run_together(runs, 0);
  if (!f.model.step_rows.empty()) CHECK(f.model.step_rows.front() <= 5);
}

TEST_CASE("no draft stands beyond the context, or beyond the positions of the model") {
  Drafting f({0});
  const auto session = f.session(60);
  REQUIRE(session->append(random_ids(20, 1)).is_ok());
  run_all(*session);
  generate(*session, f.model, 40);
  const int32_t id = 1;
  CHECK(session->append(std::span(&id, 1)).code() == Code::kContextOverflow);
}

TEST_CASE("a session that shifts drafts up to the end of its room") {
  Drafting f({0});
  const auto drafting = f.session(96), plain = f.session(96, false);
  for (const auto& session : {drafting.get(), plain.get()}) {
    REQUIRE(session->stream(32, 30).is_ok());
    REQUIRE(session->append(random_ids(20, 1)).is_ok());
    run_all(*session);
  }
  for (int i = 0; i < 300; ++i) {
    REQUIRE(copy(drafting->logits().value()) == copy(plain->logits().value()));
    const int32_t next = best_of(plain->logits().value());
    for (const auto& session : {drafting.get(), plain.get()}) {
      REQUIRE(session->append(std::span(&next, 1)).is_ok());
      run_all(*session);
    }
  }
  CHECK(drafting->stats().n_steps < plain->stats().n_steps);
}

TEST_CASE("drafts take memory of the budget while they are on, and are refused without") {
  Drafting f({0});
  const uint64_t n_draft_bytes = 15 * kVocab * sizeof(float) + 100;
  KvCache small(f.model.groups(), 2 * (test::kPageBytes + kVocab * sizeof(float)) + n_draft_bytes);
  const auto first = Session::create(f.batcher, small, {.n_ctx = 16}).take();
  const auto second = Session::create(f.batcher, small, {.n_ctx = 16}).take();
  REQUIRE(first->set_drafts(f.script.fresh()).is_ok());
  CHECK(first->has_drafts());
  CHECK(second->set_drafts(f.script.fresh()).code() == Code::kMemoryBudget);
  CHECK_FALSE(second->has_drafts());
  CHECK(first->fork().status().code() == Code::kMemoryBudget);
  REQUIRE(first->set_drafts(nullptr).is_ok());
  CHECK(second->set_drafts(f.script.fresh()).is_ok());
}

TEST_CASE("sessions of several threads draft from what all of them have seen") {
  Drafting f({0, 40});
  ModelDrafts drafts({.shared = {.n_vocab = kVocab}, .ignores_time = true}, CostTable());
  const auto text_of = [&](size_t n_prompt) {
    const auto session = f.session(400, false);
    REQUIRE(session->set_drafts(drafts.source()).is_ok());
    REQUIRE(session->append(random_ids(n_prompt, 1)).is_ok());
    run_all(*session);
    generate(*session, f.model, 80);
    return session->stats();
  };
  text_of(20);
  std::vector<SessionStats> stats(4);
  std::vector<std::thread> threads;
  for (SessionStats& one : stats) threads.emplace_back([&] { one = text_of(20); });
  for (std::thread& thread : threads) thread.join();
  for (const SessionStats& one : stats) {
    int64_t n_accepted = 0;
    for (const DraftCount& count : one.drafts) n_accepted += count.n_accepted;
    CHECK(n_accepted > 20);
  }
}

TEST_CASE("the likeliest path of a tree stands in place, and other tails are in order") {
  TokenTree tree;
  const int a = tree.add({.id = 1, .parent = -1, .probability = 0.4F});
  const int b = tree.add({.id = 2, .parent = -1, .probability = 0.6F});
  const int c = tree.add({.id = 3, .parent = a, .probability = 0.3F});
  tree.add({.id = 4, .parent = b, .probability = 0.2F});
  tree.add({.id = 5, .parent = c, .probability = 0.1F});
  Lookahead ahead;
  ahead.plan(tree, false);
  ahead.begin(100, 4);
  REQUIRE(ahead.size() == 4);
  const auto tail_of = [&](int i) { return copy_ids(ahead.tail(i)); };
  CHECK(ahead.node(0).id == 2);
  CHECK(ahead.node(1).id == 4);
  CHECK(tail_of(0).empty());
  CHECK(tail_of(1).empty());
  CHECK(ahead.node(2).id == 1);
  CHECK(tail_of(2) == std::vector<int32_t>{100, 103});
  CHECK(tail_of(3) == std::vector<int32_t>{100, 103, 104});
  CHECK(ahead.find(1) == -1);
  ahead.arm();
  CHECK(ahead.find(1) == 2);
  ahead.advance(2);
  CHECK(ahead.find(4) == -1);
  CHECK(ahead.find(3) == 3);
  ahead.advance(3);
  CHECK_FALSE(ahead.is_armed());
  ahead.plan(tree, true);
  CHECK(ahead.n_planned() == 2);
}

TEST_CASE("the likeliest ids come best first, the lower one of equals") {
  std::mt19937 random(3);
  for (const size_t n : {1, 7, 128, 129, 1000, 5000}) {
    std::vector<float> logits(n);
    for (float& x : logits) x = static_cast<float>(random() % 300) - 150;
    std::vector<int32_t> expected(n);
    for (size_t i = 0; i < n; ++i) expected[i] = static_cast<int32_t>(i);
    std::ranges::stable_sort(expected, [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    expected.resize(std::min<size_t>(n, 8));
    std::vector<int32_t> got(8);
    got.resize(static_cast<size_t>(top_ids(logits, got)));
    CHECK(got == expected);
  }
}

}  // namespace
}  // namespace edge
