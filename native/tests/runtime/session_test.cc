// Sessions without windows, on a model made of hashes.
#include "runtime/session.h"

#include <memory>
#include <vector>

#include "doctest/doctest.h"
#include "hash_model.h"
#include "model/adapter.h"

namespace edge {
namespace {

using test::copy;
using test::HashModel;
using test::kHidden;
using test::kPageBytes;
using test::kVocab;
using test::random_ids;

struct Fixture {
  HashModel model;
  Batcher batcher{model};
  KvCache cache{model.groups(), UINT64_MAX};
  std::unique_ptr<Session> session = Session::create(batcher, cache, {.n_ctx = 400}).take();

  void run_all(double budget_ms) {
    while (session->n_pending() > 0) REQUIRE(session->run(budget_ms, nullptr).is_ok());
  }
};

// Remembers the adapters of the rows of the last step.
struct AdapterModel final : StepModel {
  HashModel inner;
  std::vector<const Adapter*> adapters;

  int n_vocab() const override { return inner.n_vocab(); }
  int d_model() const override { return inner.d_model(); }
  int max_rows() const override { return inner.max_rows(); }
  Status step(std::span<const RowInput> rows, const StepOutputs& outputs,
              const StopCheck& should_stop) override {
    adapters.clear();
    for (const RowInput& row : rows) adapters.push_back(row.adapter);
    return inner.step(rows, outputs, should_stop);
  }
};

}  // namespace

TEST_CASE("all rows have the session's adapter, and with another one no token stays") {
  AdapterModel model;
  Batcher batcher{model};
  const Adapter one, other;
  KvCache cache(model.inner.groups(), UINT64_MAX);
  const auto session = Session::create(batcher, cache, {.n_ctx = 400, .adapter = &one}).take();
  const std::vector<int32_t> ids = random_ids(5, 3);
  for (const Adapter* adapter : {&one, &other, static_cast<const Adapter*>(nullptr)}) {
    if (adapter != &one) {
      REQUIRE(session->append(ids).is_ok());
      REQUIRE(session->set_adapter(adapter).is_ok());
      CHECK(session->n_tokens() == 0);
      CHECK(session->n_pending() == 0);
      CHECK_FALSE(session->logits().is_ok());
    }
    REQUIRE(session->append(ids).is_ok());
    REQUIRE(session->run(1e9, nullptr).is_ok());
    CHECK(model.adapters == std::vector<const Adapter*>(5, adapter));
    CHECK(copy(session->logits().value()) == model.inner.expected(ids));
  }
}

TEST_CASE_FIXTURE(Fixture, "logits do not depend on how the queue was cut into steps") {
  const std::vector<int32_t> ids = random_ids(200, 1);
  for (const double budget_ms : {0.0, 1e9}) {
    REQUIRE(session->rewind(0).is_ok());
    REQUIRE(session->append(ids).is_ok());
    run_all(budget_ms);
    CHECK(copy(session->logits().value()) == model.expected(ids));
  }
  REQUIRE(session->rewind(0).is_ok());
  for (const int32_t id : ids) {
    REQUIRE(session->append(std::span(&id, 1)).is_ok());
    run_all(1e9);
  }
  CHECK(copy(session->logits().value()) == model.expected(ids));
}

TEST_CASE_FIXTURE(Fixture, "a run with all logits gives those of every token, slice by slice") {
  const std::vector<int32_t> ids = random_ids(130, 2);
  REQUIRE(session->append(ids).is_ok());
  std::vector<float> all;
  while (session->n_pending() > 0) REQUIRE(session->run(0, &all).is_ok());
  REQUIRE(all.size() == ids.size() * kVocab);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto row = std::span(all).subspan(i * kVocab, kVocab);
    REQUIRE(copy(row) == model.expected(std::span(ids).first(i + 1)));
  }
  CHECK(copy(session->logits().value()) == model.expected(ids));
}

TEST_CASE_FIXTURE(Fixture, "a run for hidden states gives those of every token and no logits") {
  const std::vector<int32_t> ids = random_ids(130, 2);
  REQUIRE(session->append(std::span(ids).first(30)).is_ok());
  run_all(1e9);
  REQUIRE(session->append(std::span(ids).subspan(30)).is_ok());
  std::vector<float> hidden;
  model.n_steps_until_failure = 1;
  CHECK(session->run_with_hidden(1e9, hidden).code() == Code::kNumeric);
  CHECK(hidden.size() == 48 * kHidden);
  while (session->n_pending() > 0) REQUIRE(session->run_with_hidden(0, hidden).is_ok());
  REQUIRE(hidden.size() == 100 * kHidden);
  for (size_t i = 0; i < 100; ++i) {
    const std::vector<float> expected = model.expected(std::span(ids).first(31 + i));
    REQUIRE(std::equal(expected.begin(), expected.begin() + kHidden,
                       hidden.begin() + static_cast<std::ptrdiff_t>(i * kHidden)));
  }
  CHECK(session->logits().status().code() == Code::kInvalidArgument);
  REQUIRE(session->rewind(30).is_ok());
  CHECK(copy(session->logits().value()) == model.expected(std::span(ids).first(30)));
}

TEST_CASE_FIXTURE(Fixture, "without a head only hidden states can be asked for") {
  model.is_headless = true;
  REQUIRE(session->append(random_ids(9, 2)).is_ok());
  std::vector<float> values;
  CHECK(session->run(1e9, nullptr).code() == Code::kFeatureUnsupported);
  CHECK(session->run(1e9, &values).code() == Code::kFeatureUnsupported);
  CHECK(session->n_pending() == 9);
  CHECK(session->run_with_hidden(1e9, values).is_ok());
  CHECK(values.size() == 9 * kHidden);
}

TEST_CASE_FIXTURE(Fixture, "no step has more rows than the model takes and all rows are used") {
  REQUIRE(session->append(random_ids(400, 3)).is_ok());
  run_all(1e9);
  int n_rows = 0;
  for (const int n : model.step_rows) {
    CHECK(n <= model.max_rows());
    n_rows += n;
  }
  CHECK(n_rows == 400);
  CHECK(model.step_rows[0] == model.max_rows());
}

TEST_CASE_FIXTURE(Fixture,
                  "without time left a run makes one step and says that tokens are pending") {
  REQUIRE(session->append(random_ids(100, 4)).is_ok());
  REQUIRE(session->run(0, nullptr).is_ok());
  CHECK(model.step_rows.size() == 1);
  CHECK(session->n_pending() == 100 - model.step_rows[0]);
  CHECK(session->n_tokens() == model.step_rows[0]);
  CHECK(session->run(-1, nullptr).code() == Code::kInvalidArgument);
}

TEST_CASE_FIXTURE(Fixture, "rewind and replay gives the same logits") {
  const std::vector<int32_t> ids = random_ids(100, 5);
  REQUIRE(session->append(ids).is_ok());
  run_all(1e9);
  const std::vector<float> before = copy(session->logits().value());
  for (const int n_kept : {99, 64, 63, 33, 1, 0}) {
    REQUIRE(session->rewind(n_kept).is_ok());
    CHECK(session->logits().status().code() == Code::kInvalidArgument);
    CHECK(session->n_tokens() == n_kept);
    CHECK(session->stats().kv_bytes == kPageBytes * static_cast<size_t>(n_pages_for(n_kept)));
    REQUIRE(session->append(std::span(ids).subspan(static_cast<size_t>(n_kept))).is_ok());
    run_all(0);
    CHECK(copy(session->logits().value()) == before);
  }
}

TEST_CASE_FIXTURE(Fixture, "rewind to the present keeps the logits and drops the queue") {
  const std::vector<int32_t> ids = random_ids(40, 6);
  REQUIRE(session->append(ids).is_ok());
  run_all(1e9);
  REQUIRE(session->rewind(40).is_ok());
  CHECK(copy(session->logits().value()) == model.expected(ids));
  REQUIRE(session->append(random_ids(5, 7)).is_ok());
  CHECK(session->logits().status().code() == Code::kInvalidArgument);
  REQUIRE(session->rewind(40).is_ok());
  CHECK(session->n_pending() == 0);
  CHECK(copy(session->logits().value()) == model.expected(ids));
  CHECK(session->rewind(41).code() == Code::kInvalidArgument);
}

TEST_CASE_FIXTURE(Fixture, "logits of a place do not outlive other tokens standing there") {
  REQUIRE(session->append(random_ids(48, 20)).is_ok());
  run_all(1e9);
  REQUIRE(session->rewind(0).is_ok());
  REQUIRE(session->append(random_ids(60, 21)).is_ok());
  REQUIRE(session->run(0, nullptr).is_ok());
  REQUIRE(session->n_tokens() == 48);
  REQUIRE(session->rewind(48).is_ok());
  CHECK(session->logits().status().code() == Code::kInvalidArgument);
}

TEST_CASE_FIXTURE(Fixture, "append takes all tokens or none") {
  const std::vector<int32_t> bad = {1, 2, kVocab};
  const std::vector<int32_t> negative = {-1};
  CHECK(session->append(bad).code() == Code::kTokenOutOfRange);
  CHECK(session->append(negative).code() == Code::kTokenOutOfRange);
  CHECK(session->append(random_ids(401, 8)).code() == Code::kContextOverflow);
  CHECK(session->n_pending() == 0);
  CHECK(session->append({}).is_ok());
  REQUIRE(session->append(random_ids(400, 8)).is_ok());
  CHECK(session->append(random_ids(1, 8)).code() == Code::kContextOverflow);
}

TEST_CASE_FIXTURE(Fixture, "cancel ends one run and the queue can then be finished") {
  const std::vector<int32_t> ids = random_ids(70, 9);
  REQUIRE(session->append(ids).is_ok());
  session->cancel_flag()->store(true);
  CHECK(session->run(1e9, nullptr).code() == Code::kCancelled);
  run_all(1e9);
  CHECK(copy(session->logits().value()) == model.expected(ids));
}

TEST_CASE_FIXTURE(Fixture, "a stop check ends a step, and what it began is done again") {
  const std::vector<int32_t> ids = random_ids(130, 19);
  REQUIRE(session->append(ids).is_ok());
  int n_asked = 0;
  const auto stops_in_second_step = [&] { return ++n_asked == 4; };  // asked before and in each
  CHECK(session->run(1e9, nullptr, stops_in_second_step).code() == Code::kCancelled);
  CHECK(session->n_tokens() == 48);
  run_all(1e9);
  CHECK(copy(session->logits().value()) == model.expected(ids));
}

TEST_CASE_FIXTURE(Fixture, "a step that fails leaves the tokens before it and can be tried again") {
  const std::vector<int32_t> ids = random_ids(120, 10);
  REQUIRE(session->append(ids).is_ok());
  model.n_steps_until_failure = 2;
  std::vector<float> all;
  CHECK(session->run(1e9, &all).code() == Code::kNumeric);
  const int n_done = session->n_tokens();
  CHECK(n_done > 0);
  CHECK(all.size() == static_cast<size_t>(n_done) * kVocab);
  run_all(1e9);
  CHECK(copy(session->logits().value()) == model.expected(ids));
}

TEST_CASE_FIXTURE(Fixture, "sessions share the cache without seeing each other") {
  const std::vector<int32_t> ids = random_ids(90, 11);
  const std::vector<int32_t> other_ids = random_ids(90, 12);
  auto other = Session::create(batcher, cache, {.n_ctx = 100}).take();
  for (size_t i = 0; i < ids.size(); i += 10) {
    REQUIRE(session->append(std::span(ids).subspan(i, 10)).is_ok());
    REQUIRE(other->append(std::span(other_ids).subspan(i, 10)).is_ok());
    run_all(1e9);
    REQUIRE(other->run(1e9, nullptr).is_ok());
  }
  CHECK(copy(session->logits().value()) == model.expected(ids));
  CHECK(copy(other->logits().value()) == model.expected(other_ids));
  session.reset();
  other.reset();
  CHECK(cache.figures().used_bytes == 0);
  CHECK(cache.figures().reserved_bytes == 0);
}

TEST_CASE("a session is refused where its context would not fit the budget") {
  HashModel model;
  Batcher batcher{model};
  KvCache cache(model.groups(), kPageBytes * 4 + Session::bytes_besides_kv(model));
  CHECK(Session::create(batcher, cache, {.n_ctx = 65}).status().code() == Code::kMemoryBudget);
  CHECK(Session::create(batcher, cache, {.n_ctx = 0}).status().code() == Code::kInvalidArgument);
  const auto session = Session::create(batcher, cache, {.n_ctx = 64}).take();
  CHECK(Session::create(batcher, cache, {.n_ctx = 1}).status().code() == Code::kMemoryBudget);
}

TEST_CASE_FIXTURE(Fixture, "time is booked to prefill or to decode") {
  REQUIRE(session->append(random_ids(20, 13)).is_ok());
  run_all(1e9);
  REQUIRE(session->append(random_ids(1, 13)).is_ok());
  run_all(1e9);
  REQUIRE(session->append(random_ids(1, 14)).is_ok());
  run_all(1e9);
  const SessionStats stats = session->stats();
  CHECK(stats.n_prefill_tokens == 20);
  CHECK(stats.n_decode_tokens == 2);
  CHECK(stats.n_steps == static_cast<int64_t>(model.step_rows.size()));
  CHECK(stats.prefill_ms > 0);
  CHECK(stats.decode_ms > 0);
}

TEST_CASE_FIXTURE(Fixture,
                  "steps bring the likeliest tokens, and all logits where they are wanted") {
  model.gives_top = true;
  std::vector<int32_t> ids = random_ids(30, 5);
  REQUIRE(session->append(ids).is_ok());
  run_all(1e9);
  CHECK(session->top() == nullptr);  // nobody said how it would be sampled
  session->expect_top(true);
  const auto next = [&] {
    ids.push_back(static_cast<int32_t>(ids.size()) % kVocab);
    REQUIRE(session->append({&ids.back(), 1}).is_ok());
    run_all(1e9);
  };
  const auto is_top_right = [&] {
    const TopTokens wanted = test::top_of(model.expected(ids));
    return session->top() != nullptr && std::ranges::equal(session->top()->ids, wanted.ids) &&
           session->top()->mass == wanted.mass;
  };
  for (int i = 0; i < 5; ++i) {
    next();
    CHECK(is_top_right());
  }
  CHECK(model.n_tops == 5);
  const auto fork = session->fork().take();
  REQUIRE(fork->top() != nullptr);
  CHECK(fork->top()->ids[0] == session->top()->ids[0]);
  CHECK(copy(fork->logits().value()) == model.expected(ids));
  CHECK(is_top_right());
  // Asked for once they are brought, and from then on with every step.
  CHECK(copy(session->logits().value()) == model.expected(ids));
  CHECK(session->top() == nullptr);
  CHECK(session->n_tokens() == static_cast<int>(ids.size()));
  const size_t n_steps = model.step_rows.size();
  next();
  CHECK(copy(session->logits().value()) == model.expected(ids));
  CHECK(model.step_rows.size() == n_steps + 1);
  CHECK(model.n_tops == 5);
}

}  // namespace edge
