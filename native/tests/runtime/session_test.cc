// Sessions on a model made of a hash: the "KV" of a token is its id in its page slot, and the
// logits of a row are a hash of all ids its sequence holds up to it. Any mistake of the session in
// pages, positions, order or cuts changes the logits.
#include "runtime/session.h"

#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "backends/kv_layout.h"
#include "doctest/doctest.h"

namespace edge {
namespace {

constexpr int kVocab = 11;
constexpr int kHidden = 3;
constexpr size_t kPageBytes = kPageTokens * sizeof(int32_t);

float value(uint32_t hash, int j) { return static_cast<float>((hash >> j) & 0xFFFF); }

class HashModel final : public StepModel {
 public:
  int n_vocab() const override { return kVocab; }
  int d_model() const override { return kHidden; }
  int max_rows() const override { return 48; }
  bool has_head() const override { return !is_headless; }
  Status step(std::span<const RowInput> rows, const StepOutputs& outputs,
              const StopCheck& should_stop) override {
    if (should_stop && should_stop()) return {Code::kCancelled, "stopped"};
    if (n_steps_until_failure-- == 0) return {Code::kNumeric, "made to fail"};
    step_rows.push_back(static_cast<int>(rows.size()));
    for (const RowInput& row : rows) {
      if (row.position / kPageTokens >= row.kv.n_pages) return {Code::kInvalidArgument, "no page"};
      std::memcpy(slot(row, row.position), &row.token, sizeof row.token);
    }
    float *logits = outputs.logits, *hidden = outputs.hidden;
    for (const int32_t i : outputs.rows) {
      uint32_t hash = 2166136261u;
      const RowInput& row = rows[static_cast<size_t>(i)];
      for (int position = 0; position <= row.position; ++position) {
        int32_t token = 0;
        std::memcpy(&token, slot(row, position), sizeof token);
        hash = (hash ^ static_cast<uint32_t>(token)) * 16777619u;
      }
      for (int j = 0; logits != nullptr && j < kVocab; ++j) *logits++ = value(hash, j);
      for (int j = 0; hidden != nullptr && j < kHidden; ++j) *hidden++ = value(hash, j);
    }
    return Status::ok();
  }

  std::vector<int> step_rows;  // how the session cut its queue
  int n_steps_until_failure = -1;
  bool is_headless = false;

 private:
  static std::byte* slot(const RowInput& row, int position) {
    return row.kv.pages[position / kPageTokens] +
           static_cast<size_t>(position % kPageTokens) * sizeof(int32_t);
  }
};

std::vector<float> expected_logits(std::span<const int32_t> ids) {
  uint32_t hash = 2166136261u;
  for (const int32_t id : ids) hash = (hash ^ static_cast<uint32_t>(id)) * 16777619u;
  std::vector<float> logits;
  for (int j = 0; j < kVocab; ++j) logits.push_back(value(hash, j));
  return logits;
}

std::vector<int32_t> random_ids(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % kVocab);
  return ids;
}

std::vector<float> copy(std::span<const float> values) { return {values.begin(), values.end()}; }

struct Fixture {
  HashModel model;
  KvCache cache{kPageBytes, UINT64_MAX};
  std::unique_ptr<Session> session = Session::create(model, cache, 400).take();

  void run_all(double budget_ms) {
    while (session->n_pending() > 0) REQUIRE(session->run(budget_ms, nullptr).is_ok());
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "logits do not depend on how the queue was cut into steps") {
  const std::vector<int32_t> ids = random_ids(200, 1);
  for (const double budget_ms : {0.0, 1e9}) {
    REQUIRE(session->rewind(0).is_ok());
    REQUIRE(session->append(ids).is_ok());
    run_all(budget_ms);
    CHECK(copy(session->logits().value()) == expected_logits(ids));
  }
  REQUIRE(session->rewind(0).is_ok());
  for (const int32_t id : ids) {
    REQUIRE(session->append(std::span(&id, 1)).is_ok());
    run_all(1e9);
  }
  CHECK(copy(session->logits().value()) == expected_logits(ids));
}

TEST_CASE_FIXTURE(Fixture, "a run with all logits gives those of every token, slice by slice") {
  const std::vector<int32_t> ids = random_ids(130, 2);
  REQUIRE(session->append(ids).is_ok());
  std::vector<float> all;
  while (session->n_pending() > 0) REQUIRE(session->run(0, &all).is_ok());
  REQUIRE(all.size() == ids.size() * kVocab);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto row = std::span(all).subspan(i * kVocab, kVocab);
    REQUIRE(copy(row) == expected_logits(std::span(ids).first(i + 1)));
  }
  CHECK(copy(session->logits().value()) == expected_logits(ids));
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
    const std::vector<float> expected = expected_logits(std::span(ids).first(31 + i));
    REQUIRE(std::equal(expected.begin(), expected.begin() + kHidden,
                       hidden.begin() + static_cast<std::ptrdiff_t>(i * kHidden)));
  }
  CHECK(session->logits().status().code() == Code::kInvalidArgument);
  REQUIRE(session->rewind(30).is_ok());
  CHECK(copy(session->logits().value()) == expected_logits(std::span(ids).first(30)));
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
    CHECK(session->stats().kv_bytes == kPageBytes * static_cast<size_t>((n_kept + 31) / 32));
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
  CHECK(copy(session->logits().value()) == expected_logits(ids));
  REQUIRE(session->append(random_ids(5, 7)).is_ok());
  CHECK(session->logits().status().code() == Code::kInvalidArgument);
  REQUIRE(session->rewind(40).is_ok());
  CHECK(session->n_pending() == 0);
  CHECK(copy(session->logits().value()) == expected_logits(ids));
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
  CHECK(copy(session->logits().value()) == expected_logits(ids));
}

TEST_CASE_FIXTURE(Fixture, "a stop check ends a step, and what it began is done again") {
  const std::vector<int32_t> ids = random_ids(130, 19);
  REQUIRE(session->append(ids).is_ok());
  int n_asked = 0;
  const auto stops_in_second_step = [&] { return ++n_asked == 4; };  // asked before and in each
  CHECK(session->run(1e9, nullptr, stops_in_second_step).code() == Code::kCancelled);
  CHECK(session->n_tokens() == 48);
  run_all(1e9);
  CHECK(copy(session->logits().value()) == expected_logits(ids));
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
  CHECK(copy(session->logits().value()) == expected_logits(ids));
}

TEST_CASE_FIXTURE(Fixture, "sessions share the cache without seeing each other") {
  const std::vector<int32_t> ids = random_ids(90, 11);
  const std::vector<int32_t> other_ids = random_ids(90, 12);
  auto other = Session::create(model, cache, 100).take();
  for (size_t i = 0; i < ids.size(); i += 10) {
    REQUIRE(session->append(std::span(ids).subspan(i, 10)).is_ok());
    REQUIRE(other->append(std::span(other_ids).subspan(i, 10)).is_ok());
    run_all(1e9);
    REQUIRE(other->run(1e9, nullptr).is_ok());
  }
  CHECK(copy(session->logits().value()) == expected_logits(ids));
  CHECK(copy(other->logits().value()) == expected_logits(other_ids));
  session.reset();
  other.reset();
  CHECK(cache.figures().used_bytes == 0);
  CHECK(cache.figures().reserved_bytes == 0);
}

TEST_CASE("a session is refused where its context would not fit the budget") {
  HashModel model;
  KvCache cache(kPageBytes, kPageBytes * 4);
  CHECK(Session::create(model, cache, 129).status().code() == Code::kMemoryBudget);
  CHECK(Session::create(model, cache, 0).status().code() == Code::kInvalidArgument);
  const auto session = Session::create(model, cache, 128).take();
  CHECK(Session::create(model, cache, 1).status().code() == Code::kMemoryBudget);
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

}  // namespace edge
