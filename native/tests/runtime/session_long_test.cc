// Sessions that take tokens out of their KV's middle, against a list of what each layer holds.
#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "doctest/doctest.h"
#include "hash_model.h"
#include "runtime/kept_tokens.h"
#include "runtime/kv_compress.h"
#include "runtime/session.h"

namespace edge {
namespace {

using test::copy;
using test::first_seen;
using test::HashModel;
using test::Kept;
using test::kVocab;
using test::random_ids;

// The hash model over plain lists.
struct Lists {
  struct Token {
    Kept kept;
    int32_t token;
  };
  std::vector<int> windows;
  std::vector<std::vector<Token>> groups = std::vector<std::vector<Token>>(windows.size());
  int32_t n_tokens = 0, n_shifted = 0;
  uint32_t hash = 0;

  void feed(std::span<const int32_t> ids) {
    for (const int32_t id : ids) {
      const int32_t position = n_tokens - n_shifted;
      int32_t value = id;
      for (size_t group = 0; group < windows.size(); ++group) {
        std::vector<Token>& list = groups[group];
        list.push_back({{value, position}, n_tokens});
        hash = 2166136261u;
        const int slot = static_cast<int>(list.size()) - 1;
        for (int i = first_seen(std::abs(windows[group]), slot); i <= slot; ++i) {
          hash = test::hash_of(hash, list[static_cast<size_t>(i)].kept, position);
        }
        value = static_cast<int32_t>(hash);
      }
      ++n_tokens;
    }
  }
  void shift(int n_sink, int n_drop) {
    for (std::vector<Token>& list : groups) {
      list.erase(list.begin() + n_sink, list.begin() + n_sink + n_drop);
      for (size_t i = static_cast<size_t>(n_sink); i < list.size(); ++i) {
        list[i].kept.position -= n_drop;
      }
    }
    n_shifted += n_drop;
  }
  // Chosen by what n_window last tokens see: every one sees every slot up to its own.
  void compress(const KvCompression& how) {
    for (std::vector<Token>& list : groups) {
      std::vector<float> shares(list.size(), 0.0f);
      for (size_t row = list.size() - static_cast<size_t>(how.n_window); row < list.size(); ++row) {
        for (size_t slot = 0; slot <= row; ++slot) shares[slot] += test::share_of(list[slot].kept);
      }
      std::vector<Token> left;
      for (const int32_t slot : choose_slots(shares, how)) {
        left.push_back(list[static_cast<size_t>(slot)]);
      }
      list = left;
    }
  }
  std::vector<float> logits() const {
    std::vector<float> logits(kVocab);
    float* out = logits.data();
    test::put(hash, kVocab, out);
    return logits;
  }
  std::vector<TokenRange> ranges() const {
    std::vector<bool> is_kept(static_cast<size_t>(n_tokens));
    for (const std::vector<Token>& list : groups) {
      for (const Token& token : list) is_kept[static_cast<size_t>(token.token)] = true;
    }
    std::vector<TokenRange> ranges;
    for (int32_t i = 0; i < n_tokens; ++i) {
      if (!is_kept[static_cast<size_t>(i)]) continue;
      if (ranges.empty() || ranges.back().end != i) ranges.push_back({i, i});
      ++ranges.back().end;
    }
    return ranges;
  }
};

struct Fixture {
  explicit Fixture(std::vector<int> windows = {0}, int n_ctx = 600)
      : model(windows),
        cache(model.groups(), UINT64_MAX),
        session(Session::create(batcher, cache, {.n_ctx = n_ctx}).take()),
        lists{windows} {}

  void feed(const std::vector<int32_t>& ids) {
    REQUIRE(session->append(ids).is_ok());
    while (session->n_pending() > 0) REQUIRE(session->run(0, nullptr).is_ok());
    lists.feed(ids);
  }
  std::vector<float> logits() const { return copy(session->logits().value()); }
  void check_same() const {
    CHECK(logits() == lists.logits());
    CHECK(session->kept_ranges() == lists.ranges());
    CHECK(session->n_tokens() == lists.n_tokens);
  }

  HashModel model;
  Batcher batcher{model};
  KvCache cache;
  std::unique_ptr<Session> session;
  Lists lists;
};

}  // namespace

TEST_CASE("a shifted session goes on as lists do whose middle is gone") {
  for (const std::vector<int>& windows : {std::vector<int>{0, 0}, {0, 90}, {200}, {0, -3}}) {
    Fixture f(windows, 700);
    std::mt19937 random(7);
    f.feed(random_ids(400, 1));
    int n_drops = 0;
    for (uint32_t round = 0; round < 40; ++round) {
      const int n_slots = f.session->n_tokens() - f.session->n_dropped();
      const int n_sink = 16 * static_cast<int>(2 + random() % 5);
      const int n_drop = 16 * static_cast<int>(1 + random() % 16);
      const uint64_t used = f.cache.figures().used_bytes;
      const Status status = f.session->shift(n_sink, n_drop);
      if (status.is_ok()) {
        f.lists.shift(n_sink, n_drop);
        ++n_drops;
        CHECK(f.cache.figures().used_bytes <= used);
        CHECK(f.session->n_dropped() == f.lists.n_shifted);
      } else {
        // A window that would reach into what it has let go, or too few tokens.
        CHECK((n_sink + n_drop > n_slots || windows.back() > n_slots - n_sink - n_drop - 128));
        CHECK(f.cache.figures().used_bytes == used);
      }
      CHECK(f.session->kept_ranges() == f.lists.ranges());
      const int n_room = 700 - (f.session->n_tokens() - f.session->n_dropped());
      f.feed(random_ids(1 + random() % static_cast<uint32_t>(std::min(n_room, 150)), round));
      f.check_same();
      if (n_room < 200) break;
    }
    CHECK(n_drops >= 2);
  }
}

TEST_CASE("a stream is never full, and its bits do not depend on how its queue was cut") {
  constexpr int kContext = 330, kSink = 32, kWindow = 200;
  constexpr int kDrop = (kContext - kSink - kWindow) / 16 * 16;
  for (const std::vector<int>& windows : {std::vector<int>{0}, {0, 50}, {0, -3}}) {
    const std::vector<int32_t> ids = random_ids(1500, 3);
    Lists lists{windows};
    for (const int32_t id : ids) {
      if (static_cast<int>(lists.groups[0].size()) == kContext) lists.shift(kSink, kDrop);
      lists.feed(std::span(&id, 1));
    }
    for (const size_t chunk : {size_t{1}, size_t{7}, size_t{64}, ids.size()}) {
      Fixture f(windows, kContext);
      REQUIRE(f.session->stream(kSink, kWindow).is_ok());
      for (size_t at = 0; at < ids.size(); at += chunk) {
        const size_t n = std::min(chunk, ids.size() - at);
        REQUIRE(f.session->append(std::span(ids).subspan(at, n)).is_ok());
        while (f.session->n_pending() > 0) REQUIRE(f.session->run(0, nullptr).is_ok());
        REQUIRE(f.cache.figures().used_bytes <= f.cache.figures().reserved_bytes);
      }
      CHECK(f.logits() == lists.logits());
      CHECK(f.session->n_tokens() == 1500);
      CHECK(f.session->kept_ranges() == lists.ranges());
      CHECK(f.session->token_ids().size() == ids.size());
    }
  }
}

TEST_CASE("compressed sessions go on as lists do of what each layer chose, again and again") {
  Fixture f({0, 0, 0}, 700);
  f.feed(random_ids(600, 5));
  const std::vector<float> before = f.logits();
  const KvCompression how{.n_keep = 100, .n_sink = 4, .n_window = 32, .n_pool = 5};
  const uint64_t used = f.cache.figures().used_bytes;
  REQUIRE(f.session->compress(how).is_ok());
  CHECK(f.logits() == before);  // of the last token, which saw all
  CHECK(f.cache.figures().used_bytes * 4 < used);
  CHECK(f.session->n_dropped() == 500);
  CHECK(f.session->n_recompute() == 0);
  CHECK(f.session->stats().n_recomputed_tokens == 32);
  f.lists.compress(how);
  CHECK(f.session->kept_ranges() == f.lists.ranges());
  f.feed(random_ids(400, 6));  // 1,000 tokens in a session for 700
  f.check_same();
  f.feed({3});
  f.check_same();
  // Once more, as long as the window's tokens were all there. These are processed again, and see
  // less than they did.
  CHECK(f.session->compress({.n_keep = 600}).is_ok());
  CHECK(f.session->n_dropped() == 500);
  REQUIRE(f.session->compress({.n_keep = 60, .n_sink = 2, .n_window = 16, .n_pool = 1}).is_ok());
  CHECK(f.session->n_dropped() == 941);
  CHECK(f.session->kept_ranges().back().first <= 985);
  CHECK(f.session->kept_ranges().back().end == 1001);
  CHECK(f.session->kept_ranges().front().first == 0);
}

TEST_CASE("a rewind past what was taken out computes everything anew") {
  Fixture f({0}, 700);
  const std::vector<int32_t> ids = random_ids(600, 8);
  f.feed(ids);
  REQUIRE(f.session->shift(32, 64).is_ok());
  REQUIRE(f.session->rewind(96).is_ok());  // just behind the gap
  CHECK(f.session->n_recompute() == 0);
  CHECK(f.session->has_dropped_kv());
  CHECK(f.session->kept_ranges() == std::vector<TokenRange>{{0, 32}});
  REQUIRE(f.session->rewind(95).is_ok());
  CHECK(f.session->n_recompute() == 95);
  CHECK_FALSE(f.session->has_dropped_kv());
  std::vector<int32_t> wanted(ids.begin(), ids.begin() + 95);
  wanted.push_back(4);
  REQUIRE(f.session->append(std::span(wanted).last(1)).is_ok());
  REQUIRE(f.session->run(1e9, nullptr).is_ok());
  CHECK(f.logits() == f.model.expected(wanted));

  Fixture g({0}, 700);
  g.feed(ids);
  REQUIRE(g.session->compress({.n_keep = 64}).is_ok());
  g.feed(random_ids(300, 9));
  CHECK(g.session->rewind(800).is_ok());
  CHECK(g.session->n_recompute() == 0);
  CHECK(g.session->rewind(568).is_ok());  // the window's first token
  CHECK(g.session->n_recompute() == 0);
  CHECK(g.session->rewind(567).is_ok());
  CHECK(g.session->n_recompute() == 567);
}

TEST_CASE("a rewind that cannot be made good is refused") {
  Fixture f({0}, 600);
  f.feed(random_ids(600, 8));
  REQUIRE(f.session->shift(32, 320).is_ok());
  f.feed(random_ids(300, 9));
  REQUIRE(f.session->shift(32, 512).is_ok());
  CHECK(f.session->rewind(800).code() == Code::kContextOverflow);
  CHECK(f.session->n_tokens() == 900);
  CHECK(f.session->rewind(864).is_ok());
  CHECK(f.session->rewind(600).is_ok());
  CHECK(f.session->n_recompute() == 600);
}

TEST_CASE("trimmed sessions go on with the same bits") {
  for (const std::vector<int>& windows : {std::vector<int>{0}, {0, 60}, {0, -3}}) {
    for (const uint64_t n_bytes : {uint64_t{1}, uint64_t{20000}, UINT64_MAX}) {
      Fixture f(windows, 5000);
      f.feed(random_ids(4000, 10));
      const uint64_t held = f.cache.figures().held_bytes;
      const std::vector<float> before = f.logits();
      const uint64_t given = f.session->trim(n_bytes);
      CHECK(f.cache.figures().held_bytes == held - given);
      CHECK((n_bytes == UINT64_MAX ? f.cache.figures().held_bytes == 0 : given >= n_bytes));
      CHECK(f.session->n_tokens() == 4000);
      CHECK(f.session->n_recompute() > 0);
      CHECK(f.logits() == before);
      f.feed({1, 2});
      f.check_same();
      CHECK(f.session->n_recompute() == 0);
    }
  }
  // What was made when more was there stays.
  Fixture f({0}, 5000);
  f.feed(random_ids(4000, 11));
  REQUIRE(f.session->shift(32, 64).is_ok());
  f.lists.shift(32, 64);
  CHECK(f.session->trim(UINT64_MAX) == 0);
  CHECK(f.session->n_recompute() == 0);
  f.feed(random_ids(900, 12));
  static_cast<void>(f.session->trim(UINT64_MAX));
  CHECK(f.session->n_recompute() == 900);
  f.feed({1, 2});
  f.check_same();
}

TEST_CASE("compressing that fails or is cancelled leaves everything to go on with") {
  Fixture f({0, 0}, 700);
  const std::vector<int32_t> ids = random_ids(600, 13);
  f.feed(ids);
  f.model.n_steps_until_failure = 0;
  CHECK(f.session->compress({.n_keep = 100}).code() == Code::kNumeric);
  CHECK(f.session->compress({.n_keep = 100}, [] { return true; }).code() ==
        Code::kInvalidArgument);  // what the failed step left must run first
  f.feed({5});
  f.check_same();
  CHECK(f.session->compress({.n_keep = 100}, [] { return true; }).code() == Code::kCancelled);
  CHECK_FALSE(f.session->has_dropped_kv());
  f.feed({6});
  f.check_same();
}

TEST_CASE("what a session cannot do is refused by name and changes nothing") {
  Fixture f({0}, 640);
  f.feed(random_ids(600, 14));
  CHECK(f.session->shift(0, 64).code() == Code::kInvalidArgument);
  CHECK(f.session->shift(33, 64).code() == Code::kInvalidArgument);
  CHECK(f.session->shift(16, 64).code() == Code::kInvalidArgument);  // of the first 32
  CHECK(f.session->shift(32, 40).code() == Code::kInvalidArgument);
  CHECK(f.session->shift(32, 576).code() == Code::kInvalidArgument);
  CHECK(f.session->stream(32, 600).code() == Code::kInvalidArgument);
  CHECK(f.session->stream(32, 0).code() == Code::kInvalidArgument);
  CHECK(f.session->stream(16, 100).code() == Code::kInvalidArgument);
  for (const KvCompression& how :
       {KvCompression{.n_keep = 0}, KvCompression{.n_keep = 36},
        KvCompression{.n_keep = 100, .n_sink = -1}, KvCompression{.n_keep = 100, .n_pool = 4},
        KvCompression{.n_keep = 200, .n_window = 129}, KvCompression{.n_keep = 300, .n_window = 49},
        KvCompression{.n_keep = INT32_MIN}}) {
    CHECK(f.session->compress(how).code() == Code::kInvalidArgument);
  }
  REQUIRE(f.session->append(std::vector<int32_t>{1}).is_ok());
  CHECK(f.session->compress({.n_keep = 100}).code() == Code::kInvalidArgument);
  REQUIRE(f.session->run(1e9, nullptr).is_ok());
  f.lists.feed(std::vector<int32_t>{1});
  f.check_same();

  REQUIRE(f.session->compress({.n_keep = 100}).is_ok());
  CHECK(f.session->shift(32, 32).code() == Code::kFeatureUnsupported);
  CHECK(f.session->stream(32, 100).code() == Code::kFeatureUnsupported);
  f.model.n_positions = 700;
  CHECK(f.session->append(random_ids(100, 1)).code() == Code::kContextOverflow);
  CHECK(f.session->append(random_ids(99, 1)).is_ok());

  Fixture windowed({0, 50}, 640);
  windowed.feed(random_ids(600, 15));
  CHECK(windowed.session->compress({.n_keep = 100}).code() == Code::kFeatureUnsupported);
  CHECK(windowed.session->stream(32, 20).code() == Code::kInvalidArgument);
  REQUIRE(windowed.session->shift(32, 64).is_ok());

  Fixture shifted({0}, 640);
  shifted.feed(random_ids(600, 15));
  REQUIRE(shifted.session->shift(32, 64).is_ok());
  CHECK(shifted.session->compress({.n_keep = 100}).code() == Code::kFeatureUnsupported);
}

TEST_CASE("the slots chosen are the best by pooled share, in order") {
  std::mt19937 random(16);
  for (int round = 0; round < 300; ++round) {
    const int n_slots = 20 + static_cast<int>(random() % 100);
    KvCompression how{.n_keep = 0,
                      .n_sink = static_cast<int>(random() % 4),
                      .n_window = 1 + static_cast<int>(random() % 5),
                      .n_pool = 1 + 2 * static_cast<int>(random() % 4)};
    const int n_least = how.n_sink + how.n_window + 1;
    how.n_keep = n_least + static_cast<int>(random() % static_cast<uint32_t>(n_slots - n_least));
    REQUIRE(how.check(n_slots).is_ok());
    std::vector<float> shares(static_cast<size_t>(n_slots));
    for (float& share : shares) share = static_cast<float>(random() % 8);  // many ties
    const std::vector<int32_t> kept = choose_slots(shares, how);
    REQUIRE(static_cast<int>(kept.size()) == how.n_keep);
    CHECK(std::is_sorted(kept.begin(), kept.end()));
    CHECK(std::adjacent_find(kept.begin(), kept.end()) == kept.end());
    const int first = how.n_sink, end = n_slots - how.n_window;
    const auto pooled = [&](int slot) {
      float most = 0;
      for (int i = slot - how.n_pool / 2; i <= slot + how.n_pool / 2; ++i) {
        if (i >= first && i < end) most = std::max(most, shares[static_cast<size_t>(i)]);
      }
      return most;
    };
    std::vector<bool> is_kept(shares.size());
    for (const int32_t slot : kept) is_kept[static_cast<size_t>(slot)] = true;
    for (int i = 0; i < n_slots; ++i) {
      const bool is_chosen = is_kept[static_cast<size_t>(i)];
      if (i < first || i >= end) {
        CHECK(is_chosen);
        continue;
      }
      for (int j = first; j < end && is_chosen; ++j) {  // nothing left out is better
        if (is_kept[static_cast<size_t>(j)]) continue;
        CHECK((pooled(i) > pooled(j) || (pooled(i) == pooled(j) && i < j)));
      }
    }
  }
}

}  // namespace edge
