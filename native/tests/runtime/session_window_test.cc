// Sessions of a model with windows: the same logits in bounded memory, and rewinds of all kinds.
#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "doctest/doctest.h"
#include "hash_model.h"
#include "runtime/session.h"

namespace edge {
namespace {

using test::copy;
using test::HashModel;
using test::kVocab;
using test::random_ids;

constexpr int kContext = 900;

struct Fixture {
  HashModel model{{0, 40, 7}};
  Batcher batcher{model};
  KvCache cache{model.groups(), UINT64_MAX};
  std::unique_ptr<Session> session = Session::create(batcher, cache, {.n_ctx = kContext}).take();

  void feed(std::span<const int32_t> ids) {
    REQUIRE(session->append(ids).is_ok());
    while (session->n_pending() > 0) REQUIRE(session->run(0, nullptr).is_ok());
  }
  std::vector<float> logits() const { return copy(session->logits().value()); }
};

std::span<const int32_t> part(const std::vector<int32_t>& ids, int first, int end) {
  return std::span(ids).subspan(static_cast<size_t>(first), static_cast<size_t>(end - first));
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "logits past the windows do not depend on how the queue was cut") {
  const std::vector<int32_t> ids = random_ids(500, 1);
  REQUIRE(session->append(ids).is_ok());
  std::vector<float> all;
  REQUIRE(session->run(1e9, &all).is_ok());
  REQUIRE(all.size() == ids.size() * kVocab);
  CHECK(logits() == model.expected(ids));
  REQUIRE(session->rewind(0).is_ok());
  for (int i = 0; i < 500; ++i) {
    feed(part(ids, i, i + 1));
    const auto row = std::span(all).subspan(static_cast<size_t>(i) * kVocab, kVocab);
    REQUIRE(logits() == copy(row));
  }
}

TEST_CASE_FIXTURE(Fixture, "a session holds what it reserved at most, whatever its length") {
  const uint64_t reserved = cache.figures().reserved_bytes;
  const uint64_t of_pages = kv_bytes_for(model.groups(), kContext);
  CHECK(reserved == of_pages + Session::bytes_besides_kv(model));
  uint64_t most = 0;
  for (int i = 0; i < kContext; i += 4) {
    feed(random_ids(4, static_cast<uint32_t>(i)));
    const uint64_t held = session->stats().kv_bytes;
    REQUIRE(held == cache.figures().used_bytes);
    REQUIRE(held <= reserved);
    most = std::max(most, held);
  }
  uint64_t first_extra = 0;  // of pages that are gone when the rest is full
  for (const KvGroup& group : model.groups()) {
    if (group.window > 0) first_extra += kFirstPages * (group.bytes_of(0) - group.page_bytes);
  }
  CHECK(most == of_pages - first_extra);
  const auto n_all = static_cast<size_t>(n_pages_for(kContext));
  CHECK(reserved < n_all * test::kPageBytes * 3);  // of six without windows
  session.reset();
  CHECK(cache.figures().used_bytes == 0);
  CHECK(cache.figures().reserved_bytes == 0);
}

TEST_CASE("sessions that fill the budget are never refused a page") {
  HashModel model{{0, 40}};
  Batcher batcher{model};
  const uint64_t n_bytes = kv_bytes_for(model.groups(), kContext);
  KvCache cache{model.groups(), 2 * (n_bytes + Session::bytes_besides_kv(model))};
  const auto first = Session::create(batcher, cache, {.n_ctx = kContext}).take();
  const auto second = Session::create(batcher, cache, {.n_ctx = kContext}).take();
  CHECK(Session::create(batcher, cache, {.n_ctx = 1}).status().code() == Code::kMemoryBudget);
  const std::vector<int32_t> ids = random_ids(kContext, 2), others = random_ids(kContext, 3);
  for (int i = 0; i < kContext; i += 50) {
    REQUIRE(first->append(part(ids, i, i + 50)).is_ok());
    REQUIRE(second->append(part(others, i, i + 50)).is_ok());
    REQUIRE(first->run(1e9, nullptr).is_ok());
    REQUIRE(second->run(1e9, nullptr).is_ok());
    REQUIRE(cache.figures().used_bytes <= cache.figures().reserved_bytes);
  }
  CHECK(copy(first->logits().value()) == model.expected(ids));
  CHECK(copy(second->logits().value()) == model.expected(others));
}

TEST_CASE_FIXTURE(Fixture, "a rewind of 128 tokens costs nothing") {
  const std::vector<int32_t> ids = random_ids(700, 4), others = random_ids(700, 5);
  feed(ids);
  const size_t n_steps = model.step_rows.size();
  REQUIRE(session->rewind(700 - kKeptTokens).is_ok());
  CHECK(session->n_recompute() == 0);
  feed(part(others, 0, 1));
  CHECK(model.step_rows.size() == n_steps + 1);
  std::vector<int32_t> wanted = ids;
  wanted.resize(700 - kKeptTokens);
  wanted.push_back(others[0]);
  CHECK(logits() == model.expected(wanted));
  CHECK(session->stats().n_recomputed_tokens == 0);
}

TEST_CASE_FIXTURE(Fixture, "a rewind past what is kept is made good by the next run") {
  std::vector<int32_t> ids = random_ids(700, 6);
  feed(ids);
  REQUIRE(session->rewind(400).is_ok());
  CHECK(session->n_tokens() == 400);
  CHECK(session->n_pending() == 0);
  CHECK(session->n_recompute() == 400);
  CHECK(session->stats().kv_bytes == 0);
  CHECK(std::ranges::equal(session->token_ids(), part(ids, 0, 400)));
  CHECK(session->logits().status().code() == Code::kInvalidArgument);
  CHECK(session->run(1e9, nullptr).is_ok());  // nothing to do yet
  CHECK(session->n_recompute() == 400);

  ids.resize(400);
  const std::vector<int32_t> more = random_ids(60, 7);
  ids.insert(ids.end(), more.begin(), more.end());
  REQUIRE(session->append(more).is_ok());
  CHECK(session->n_pending() == 60);
  std::vector<float> all;
  while (session->n_pending() > 0) REQUIRE(session->run(0, &all).is_ok());
  CHECK(all.size() == 60 * kVocab);  // not those of tokens that were processed before
  CHECK(logits() == model.expected(ids));
  CHECK(copy(std::span(all).first(kVocab)) == model.expected(part(ids, 0, 401)));
  const SessionStats stats = session->stats();
  CHECK(stats.n_recomputed_tokens == 400);
  CHECK(stats.n_prefill_tokens == 760);
  CHECK(stats.n_decode_tokens == 0);
}

TEST_CASE_FIXTURE(Fixture, "hidden states after a far rewind are those of new tokens only") {
  std::vector<int32_t> ids = random_ids(700, 16);
  feed(ids);
  REQUIRE(session->rewind(400).is_ok());
  ids.resize(405);
  REQUIRE(session->append(part(ids, 400, 405)).is_ok());
  std::vector<float> hidden;
  while (session->n_pending() > 0) REQUIRE(session->run_with_hidden(0, hidden).is_ok());
  REQUIRE(hidden.size() == 5 * test::kHidden);
  const std::vector<float> last = model.expected(ids);
  CHECK(std::equal(hidden.end() - test::kHidden, hidden.end(), last.begin()));
}

TEST_CASE_FIXTURE(Fixture, "one token after a far rewind is no decoding step") {
  feed(random_ids(700, 8));
  REQUIRE(session->rewind(300).is_ok());
  feed(random_ids(1, 9));
  CHECK(session->stats().n_decode_tokens == 0);
  feed(random_ids(1, 10));
  CHECK(session->stats().n_decode_tokens == 1);
}

TEST_CASE_FIXTURE(Fixture, "cancelled or failed halfway, what is computed again stays whole") {
  std::vector<int32_t> ids = random_ids(700, 11);
  feed(ids);
  REQUIRE(session->rewind(300).is_ok());
  ids.resize(310);
  REQUIRE(session->append(part(ids, 300, 310)).is_ok());
  REQUIRE(session->run(0, nullptr).is_ok());
  CHECK(session->n_recompute() == 300 - model.max_rows());
  session->cancel_flag()->store(true);
  CHECK(session->run(1e9, nullptr).code() == Code::kCancelled);
  model.n_steps_until_failure = 1;
  CHECK(session->run(1e9, nullptr).code() == Code::kNumeric);
  CHECK(session->n_recompute() == 300 - 2 * model.max_rows());
  CHECK(session->n_tokens() == 300);
  CHECK(session->n_pending() == 10);
  feed({});
  CHECK(logits() == model.expected(ids));
}

TEST_CASE_FIXTURE(Fixture, "a rewind while tokens are computed again keeps what is there") {
  std::vector<int32_t> ids = random_ids(700, 12);
  feed(ids);
  REQUIRE(session->rewind(400).is_ok());
  REQUIRE(session->append(random_ids(1, 13)).is_ok());
  for (int i = 0; i < 3; ++i) REQUIRE(session->run(0, nullptr).is_ok());
  REQUIRE(session->n_recompute() == 400 - 3 * model.max_rows());
  CHECK(session->rewind(401).code() == Code::kInvalidArgument);
  REQUIRE(session->rewind(200).is_ok());
  CHECK(session->n_pending() == 0);
  CHECK(session->n_recompute() == 200 - 3 * model.max_rows());
  REQUIRE(session->rewind(100).is_ok());
  CHECK(session->n_recompute() == 0);
  ids.resize(100);
  const std::vector<int32_t> more = random_ids(20, 14);
  ids.insert(ids.end(), more.begin(), more.end());
  feed(more);
  CHECK(logits() == model.expected(ids));
}

TEST_CASE("random walks give the logits of fresh sessions") {
  for (uint32_t seed = 0; seed < 25; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
    HashModel model{{below(2) * 100, 1 + below(90), 1 + below(300)}};
    Batcher batcher{model};
    const uint64_t n_bytes = kv_bytes_for(model.groups(), kContext);
    KvCache cache{model.groups(), n_bytes + Session::bytes_besides_kv(model)};
    const auto session = Session::create(batcher, cache, {.n_ctx = kContext}).take();
    std::vector<int32_t> ids;
    for (int action = 0; action < 30; ++action) {
      const int n_room = kContext - static_cast<int>(ids.size());
      if (below(3) != 0 && n_room > 0) {
        const std::vector<int32_t> more =
            random_ids(static_cast<size_t>(1 + below(std::min(n_room, 150))),
                       seed * 100 + static_cast<uint32_t>(action));
        ids.insert(ids.end(), more.begin(), more.end());
        REQUIRE(session->append(more).is_ok());
        if (below(5) == 0) model.n_steps_until_failure = below(4);
        for (int i = below(4); i >= 0; --i) static_cast<void>(session->run(0, nullptr));
        model.n_steps_until_failure = -1;
      } else {
        const int back = below(below(2) == 0 ? 100 : kContext);
        const int n_kept = std::max(0, session->n_tokens() - back);
        REQUIRE(session->rewind(n_kept).is_ok());
        ids.resize(static_cast<size_t>(n_kept));
      }
      REQUIRE(session->n_tokens() + session->n_pending() == static_cast<int>(ids.size()));
      REQUIRE(session->stats().kv_bytes <= cache.figures().reserved_bytes);
    }
    if (ids.size() == kContext) ids.resize(static_cast<size_t>(session->n_tokens()) / 2);
    REQUIRE(session->rewind(std::min(session->n_tokens(), static_cast<int>(ids.size()))).is_ok());
    ids.resize(static_cast<size_t>(session->n_tokens()));
    const std::vector<int32_t> last = random_ids(1, seed);
    ids.push_back(last[0]);
    REQUIRE(session->append(last).is_ok());
    REQUIRE(session->run(1e9, nullptr).is_ok());
    REQUIRE(copy(session->logits().value()) == model.expected(ids));
  }
}

}  // namespace edge
