// Sessions that share steps against sessions alone, on a model made of hashes.
#include "runtime/batcher.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "doctest/doctest.h"
#include "hash_model.h"
#include "runtime/session.h"

namespace edge {
namespace {

using test::copy;
using test::HashModel;
using test::kHidden;
using test::kVocab;
using test::random_ids;

constexpr double kNoBudgetMs = 1e12;

// A HashModel that remembers its steps, fails those with a certain token, and can be held.
struct WatchedModel final : StepModel {
  HashModel inner{{0, 40, 7}};
  std::vector<size_t> n_sequences;  // by step
  int32_t broken_token = -1;
  std::atomic<int> n_free{1 << 30};  // steps: later ones are held
  std::atomic<int> n_begun{0};

  int n_vocab() const override { return kVocab; }
  int d_model() const override { return kHidden; }
  int max_rows() const override { return inner.max_rows(); }
  Status step(std::span<const RowInput> rows, const StepOutputs& outputs,
              const StopCheck& should_stop) override {
    std::vector<const KvTable*> seen;
    for (const RowInput& row : rows) {
      if (seen.empty() || seen.back() != row.kv.tables) seen.push_back(row.kv.tables);
    }
    n_sequences.push_back(seen.size());
    const int number = ++n_begun;
    while (number > n_free) {
      if (should_stop()) return {Code::kCancelled, "stopped"};
      std::this_thread::yield();
    }
    for (const RowInput& row : rows) {
      if (row.token == broken_token) return {Code::kNumeric, "a broken token"};
    }
    return inner.step(rows, outputs, should_stop);
  }
};

struct Fixture {
  WatchedModel model;
  KvCache cache{model.inner.groups(), UINT64_MAX};
  Batcher batcher{model};

  std::unique_ptr<Session> session(int n_ctx = 400) {
    return Session::create(batcher, cache, {.n_ctx = n_ctx}).take();
  }
};

// What a session holds, kept besides it.
struct Twin {
  std::unique_ptr<Session> session;
  std::vector<int32_t> ids;
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "sessions that run together have the logits of sessions alone") {
  std::mt19937 random(1);
  std::vector<Twin> twins(6);
  for (Twin& twin : twins) twin.session = session();
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  for (int round = 0; round < 300; ++round) {
    for (Twin& twin : twins) {  // leave and join, go back, say more, or nothing
      if (below(12) == 0) twin = {session(), {}};
      if (below(8) == 0) {
        twin.ids.resize(below(static_cast<size_t>(twin.session->n_tokens()) + 1));
        REQUIRE(twin.session->rewind(static_cast<int>(twin.ids.size())).is_ok());
      }
      const size_t n_more = below(3) == 0 ? 0 : below(6) == 0 ? 1 + below(90) : 1;
      if (twin.ids.size() + n_more > 400) continue;
      const std::vector<int32_t> more = random_ids(n_more, static_cast<uint32_t>(random()));
      REQUIRE(twin.session->append(more).is_ok());
      twin.ids.insert(twin.ids.end(), more.begin(), more.end());
      if (below(20) == 0) twin.session->cancel_flag()->store(true);
    }
    std::vector<Session::Run> runs;
    for (Twin& twin : twins) {
      if (below(5) != 0) runs.push_back({.session = twin.session.get()});
    }
    Session::run_together(runs, below(2) == 0 ? 0 : kNoBudgetMs);
    for (const Session::Run& run : runs) {
      if (!run.status.is_ok()) REQUIRE(run.status.code() == Code::kCancelled);
    }
    for (Twin& twin : twins) {
      if (twin.session->n_pending() > 0 || !twin.session->logits().is_ok()) continue;
      REQUIRE(copy(twin.session->logits().value()) == model.inner.expected(twin.ids));
    }
  }
  CHECK(*std::ranges::max_element(model.n_sequences) == 6);
}

TEST_CASE_FIXTURE(Fixture, "steps give logits of all rows and hidden states to those who ask") {
  const std::vector<int32_t> ids = random_ids(30, 4);
  const std::span<const int32_t> all(ids);
  std::vector<std::unique_ptr<Session>> sessions;
  std::vector<float> logits, hidden;
  std::vector<Session::Run> runs;
  for (size_t i = 0; i < 4; ++i) {
    sessions.push_back(session());
    REQUIRE(sessions[i]->append(all.subspan(i, 9)).is_ok());
    runs.push_back({.session = sessions[i].get()});
  }
  runs[1].logits = &logits;
  runs[2].hidden = &hidden;
  Session::run_together(runs, kNoBudgetMs);
  REQUIRE(model.n_sequences == std::vector<size_t>{4});
  REQUIRE(logits.size() == 9 * kVocab);
  REQUIRE(hidden.size() == 9 * kHidden);
  for (size_t n = 1; n <= 9; ++n) {
    const auto row = std::span(logits).subspan((n - 1) * kVocab, kVocab);
    CHECK(copy(row) == model.inner.expected(all.subspan(1, n)));
    const std::vector<float> expected = model.inner.expected(all.subspan(2, n));
    CHECK(std::equal(expected.begin(), expected.begin() + kHidden,
                     hidden.begin() + static_cast<std::ptrdiff_t>((n - 1) * kHidden)));
  }
  for (const size_t i : {0, 1, 3}) {
    CHECK(copy(sessions[i]->logits().value()) == model.inner.expected(all.subspan(i, 9)));
  }
  CHECK_FALSE(sessions[2]->logits().is_ok());
}

TEST_CASE_FIXTURE(Fixture, "the failure of one session is not the others'") {
  model.broken_token = 10;
  const auto good = session(), bad = session(), last = session();
  std::vector<float> kept(5, 7.0f);
  REQUIRE(good->append(std::vector<int32_t>{1, 2, 3}).is_ok());
  REQUIRE(bad->append(std::vector<int32_t>{1, 10, 3}).is_ok());
  REQUIRE(last->append(std::vector<int32_t>{4}).is_ok());
  std::vector<Session::Run> runs = {
      {.session = good.get()}, {.session = bad.get(), .logits = &kept}, {.session = last.get()}};
  Session::run_together(runs, kNoBudgetMs);
  CHECK(runs[0].status.is_ok());
  CHECK(runs[1].status.code() == Code::kNumeric);
  CHECK(runs[2].status.is_ok());
  CHECK(kept == std::vector<float>(5, 7.0f));
  CHECK(bad->n_tokens() == 0);
  CHECK(bad->n_pending() == 3);
  CHECK(copy(good->logits().value()) == model.inner.expected(std::vector<int32_t>{1, 2, 3}));
  CHECK(copy(last->logits().value()) == model.inner.expected(std::vector<int32_t>{4}));
  model.broken_token = -1;
  REQUIRE(bad->run(kNoBudgetMs, nullptr).is_ok());
  CHECK(copy(bad->logits().value()) == model.inner.expected(std::vector<int32_t>{1, 10, 3}));
}

TEST_CASE_FIXTURE(Fixture, "prompts take turns, and decoding goes on beside them") {
  const auto decoding = session(), one = session(), two = session(), urgent = session();
  urgent->set_priority(1);
  for (Session* prompt : {one.get(), two.get(), urgent.get()}) {
    REQUIRE(prompt->append(random_ids(300, 5)).is_ok());
  }
  std::vector<Session::Run> runs;
  for (Session* each : {decoding.get(), one.get(), two.get(), urgent.get()}) {
    runs.push_back({.session = each});
  }
  int n_first = 0;  // tokens of the urgent one when the others begin
  for (int step = 0; urgent->n_pending() > 0 || one->n_pending() > 0; ++step) {
    REQUIRE(decoding->append(std::vector<int32_t>{step % kVocab}).is_ok());
    Session::run_together(runs, 0);
    REQUIRE(decoding->n_pending() == 0);
    if (one->n_tokens() == 0 && two->n_tokens() == 0) n_first = urgent->n_tokens();
    CHECK(std::abs(one->n_tokens() - two->n_tokens()) <= model.max_rows());
  }
  CHECK(n_first > 300 - model.max_rows());
  CHECK(copy(one->logits().value()) == model.inner.expected(random_ids(300, 5)));
}

TEST_CASE_FIXTURE(Fixture,
                  "sessions in threads that come and go have the logits of sessions alone") {
  std::vector<std::thread> threads;
  std::atomic<int> n_wrong{0};
  constexpr uint32_t kThreads = 5;
  for (uint32_t seed = 0; seed < kThreads; ++seed) {
    threads.emplace_back([&, seed] {
      const auto own = session();
      std::vector<int32_t> ids = random_ids(20 + 30 * seed, seed);
      if (!own->append(ids).is_ok()) ++n_wrong;
      for (uint32_t i = 0; i < 100 + 10 * seed; ++i) {
        while (own->n_pending() > 0) {
          if (!own->run(0, nullptr).is_ok()) ++n_wrong;
        }
        if (copy(own->logits().value()) != model.inner.expected(ids)) ++n_wrong;
        ids.push_back(static_cast<int32_t>((seed + i) % kVocab));
        if (!own->append(std::span(ids).last(1)).is_ok()) ++n_wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(n_wrong == 0);
  CHECK(cache.figures().used_bytes == 0);
}

TEST_CASE_FIXTURE(Fixture, "one that is stopped leaves a step under way, and one that waits") {
  const auto stopped = session(), other = session(), waiting = session();
  REQUIRE(stopped->append(random_ids(40, 1)).is_ok());
  REQUIRE(other->append(random_ids(5, 2)).is_ok());
  REQUIRE(waiting->append(random_ids(5, 3)).is_ok());
  std::vector<Session::Run> runs = {{.session = stopped.get()}, {.session = other.get()}};
  model.n_free = 0;
  std::thread together([&] { Session::run_together(runs, kNoBudgetMs); });
  while (model.n_begun < 1) std::this_thread::yield();
  Status late;
  int n_asked = 0;
  std::thread alone(
      [&] { late = waiting->run(kNoBudgetMs, nullptr, [&] { return ++n_asked == 3; }); });
  alone.join();  // though a step is under way for the others
  CHECK(late.code() == Code::kCancelled);
  CHECK(waiting->n_pending() == 5);
  stopped->cancel_flag()->store(true);
  while (model.n_begun < 2) std::this_thread::yield();
  model.n_free = 99;
  together.join();
  CHECK(runs[0].status.code() == Code::kCancelled);
  CHECK(runs[1].status.is_ok());
  CHECK(stopped->n_pending() == 40);
  CHECK(copy(other->logits().value()) == model.inner.expected(random_ids(5, 2)));
  REQUIRE(stopped->run(kNoBudgetMs, nullptr).is_ok());
  CHECK(copy(stopped->logits().value()) == model.inner.expected(random_ids(40, 1)));
}

namespace {

// A session that runs in a thread of its own.
struct Runner {
  Runner(Session& session, std::vector<float>* hidden = nullptr)
      : thread([this, &session, hidden] {
          const StopCheck counts = [this] { return ++n_asked < 0; };
          status = hidden != nullptr ? session.run_with_hidden(kNoBudgetMs, *hidden, counts)
                                     : session.run(kNoBudgetMs, nullptr, counts);
          is_over = true;
        }) {}
  // Until it waits for a step; one that waits is asked every 20 ms.
  void await_waiting() const {
    while (n_asked < 2) std::this_thread::yield();
  }
  bool ends_soon() const {
    for (int i = 0; i < 2000 && !is_over; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return is_over;
  }

  Status status;
  std::atomic<int> n_asked{0};
  std::atomic<bool> is_over{false};
  std::thread thread;
};

}  // namespace

TEST_CASE_FIXTURE(Fixture,
                  "a prompt that is stopped does not wait for what the others go on with") {
  const auto first = session(), stopped = session(), other = session();
  REQUIRE(first->append(random_ids(1, 1)).is_ok());
  REQUIRE(stopped->append(random_ids(20, 2)).is_ok());
  REQUIRE(other->append(random_ids(5, 3)).is_ok());
  model.n_free = 0;
  Runner begins(*first);
  while (model.n_begun < 1) std::this_thread::yield();
  Runner leaves(*stopped), stays(*other);
  leaves.await_waiting();
  stays.await_waiting();
  model.n_free = 1;
  while (model.n_begun < 2) std::this_thread::yield();
  stopped->cancel_flag()->store(true);
  CHECK(leaves.ends_soon());  // while the step that the other one begins again is held
  model.n_free = 99;
  for (Runner* runner : {&begins, &leaves, &stays}) runner->thread.join();
  CHECK(model.n_sequences == std::vector<size_t>{1, 2, 1});
  CHECK(leaves.status.code() == Code::kCancelled);
  CHECK(stopped->n_pending() == 20);
  CHECK(stays.status.is_ok());
  CHECK(copy(other->logits().value()) == model.inner.expected(random_ids(5, 3)));
}

TEST_CASE_FIXTURE(Fixture,
                  "threads that want hidden states share steps with those that want text") {
  const auto first = session(), embedded = session(), text = session();
  REQUIRE(first->append(random_ids(1, 1)).is_ok());
  REQUIRE(embedded->append(random_ids(20, 2)).is_ok());
  REQUIRE(text->append(random_ids(5, 3)).is_ok());
  std::vector<float> hidden;
  model.n_free = 0;
  Runner begins(*first);
  while (model.n_begun < 1) std::this_thread::yield();
  Runner embeds(*embedded, &hidden), writes(*text);
  embeds.await_waiting();
  writes.await_waiting();
  model.n_free = 99;
  for (Runner* runner : {&begins, &embeds, &writes}) {
    runner->thread.join();
    CHECK(runner->status.is_ok());
  }
  CHECK(model.n_sequences == std::vector<size_t>{1, 2});
  REQUIRE(hidden.size() == 20 * kHidden);
  const std::vector<float> expected = model.inner.expected(random_ids(20, 2));
  CHECK(std::equal(expected.begin(), expected.begin() + kHidden, hidden.end() - kHidden));
  CHECK(copy(text->logits().value()) == model.inner.expected(random_ids(5, 3)));
}

TEST_CASE_FIXTURE(Fixture, "a session says how often the latency budget made its steps smaller") {
  for (const double budget_ms : {0.0, 1e-9, 1e9}) {
    Batcher strict(model, budget_ms);
    const auto decoding = Session::create(strict, cache, {.n_ctx = 400}).take();
    const auto prompt = Session::create(strict, cache, {.n_ctx = 400}).take();
    REQUIRE(prompt->append(random_ids(300, 5)).is_ok());
    std::vector<Session::Run> runs = {{.session = decoding.get()}, {.session = prompt.get()}};
    for (int step = 0; step < 20; ++step) {
      REQUIRE(decoding->append(std::vector<int32_t>{step % kVocab}).is_ok());
      Session::run_together(runs, 0);
    }
    CHECK((prompt->stats().n_capped_steps > 0) == (budget_ms == 1e-9));
    CHECK(decoding->stats().n_capped_steps == 0);
  }
}

TEST_CASE("a step with prompts takes what the latency budget leaves") {
  StepClock clock;
  CHECK(clock.prompt_rows(4, 0) == StepClock::kFirstPromptRows);
  clock.record(0, 128, 1340);  // a prompt alone
  CHECK(clock.prompt_rows(4, 0) == StepClock::kFirstPromptRows);
  clock.record(4, 0, 100);
  CHECK(clock.step_ms(4) == 100);
  CHECK(clock.step_ms(2) == 100);         // the nearest known
  CHECK(clock.step_ms(14) == 200);        // 10 ms a row
  CHECK(clock.prompt_rows(4, 0) == 7);    // 75 ms left
  CHECK(clock.prompt_rows(4, 150) == 5);  // 50 ms left
  CHECK(clock.prompt_rows(4, 10) == 1);   // a prompt is read all the same
  CHECK(clock.prompt_rows(4, 1e9) == 128);
  for (int i = 0; i < 100; ++i) clock.record(4, 0, 1e6);  // a machine that has become slow
  CHECK(clock.step_ms(4) > 0.9e6);
  CHECK(clock.step_ms(128) >= clock.step_ms(4));
  for (int i = 0; i < 100; ++i) clock.record(4, 8, 2e3);  // and fast again
  CHECK(clock.step_ms(4) < 2.1e3);
  CHECK(clock.prompt_rows(4, 0) == 0);  // to learn what a step without a prompt takes now
  clock.record(4, 0, 1e3);
  CHECK(clock.prompt_rows(4, 0) >= StepClock::kFewestPromptRows);
}

TEST_CASE("a step alone says that more rows take more in proportion, at most") {
  StepClock clock;
  clock.record(8, 0, 80);
  CHECK(clock.step_ms(12) == 120);
  CHECK(clock.prompt_rows(8, 0) == 6);
}

}  // namespace edge
