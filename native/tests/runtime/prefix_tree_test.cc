// Sequences that share pages through a prefix tree, on a model made of hashes: whatever is shared,
// rewound, forked and let go, they give what each would give alone.
#include "runtime/prefix_tree.h"

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "doctest/doctest.h"
#include "hash_text.h"

namespace edge {
namespace {

using test::HashModel;
using test::joined;
using test::kTextContext;
using test::random_ids;
using test::Text;

constexpr int kLongContext = 1400;

struct Fixture {
  explicit Fixture(std::vector<int> windows = {0}, uint64_t budget = UINT64_MAX,
                   uint64_t idle = UINT64_MAX)
      : model(std::move(windows)), cache(model.groups(), budget), tree(cache, idle) {}

  Text text(std::vector<int32_t> ids, std::string_view key = "", int n_ctx = kTextContext) {
    return {std::move(ids), KvSequence::create(cache, n_ctx, &tree, key).take(), 0};
  }
  // What is known of the first n of these and others behind, after that gave what it must give.
  int n_known(const std::vector<int32_t>& ids, size_t n) {
    std::vector<int32_t> other(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n));
    other.push_back(n < ids.size() ? (ids[n] + 1) % test::kVocab : 0);
    Text one = text(joined(other, random_ids(20, 9)), "", kLongContext);
    REQUIRE(one.run(model) == model.expected(one.ids));
    return one.n_adopted;
  }

  HashModel model;
  KvCache cache;
  PrefixTree tree;
};

}  // namespace

TEST_CASE("a text that begins like another computes only the rest") {
  Fixture f;
  const std::vector<int32_t> common = random_ids(200, 1);
  Text first = f.text(joined(common, random_ids(50, 2)));
  CHECK(first.run(f.model) == f.model.expected(first.ids));
  CHECK(first.n_adopted == 0);

  SUBCASE("whole pages of one that goes on") {
    Text second = f.text(joined(common, random_ids(30, 3)));
    CHECK(second.run(f.model) == f.model.expected(second.ids));
    CHECK(second.n_adopted == 192 + 8);  // the rest of the next page is copied
    CHECK(first.kv->n_shared_pages() == 15);
    CHECK(second.kv->n_shared_pages() == 14);
  }
  SUBCASE("and the last page of one that has ended") {
    first.end();
    Text second = f.text(joined(first.ids, random_ids(30, 3)));
    CHECK(second.run(f.model) == f.model.expected(second.ids));
    CHECK(second.n_adopted == 250);
  }
  SUBCASE("all but the last token of the same text") {
    first.end();
    Text second = f.text(first.ids);
    CHECK(second.run(f.model) == f.model.expected(second.ids));
    CHECK(second.n_adopted == 249);
  }
  SUBCASE("nothing under another key") {
    first.end();
    Text second = f.text(first.ids, "another adapter");
    CHECK(second.run(f.model) == f.model.expected(second.ids));
    CHECK(second.n_adopted == 0);
  }
}

TEST_CASE("common pages stand once in the account") {
  Fixture f;
  const std::vector<int32_t> common = random_ids(320, 1);
  std::vector<Text> texts;
  for (uint32_t i = 0; i < 8; ++i) {
    texts.push_back(f.text(joined(common, random_ids(10, 10 + i))));
    CHECK(texts.back().run(f.model) == f.model.expected(texts.back().ids));
  }
  CHECK(f.cache.figures().used_bytes == (20 + 8) * test::kPageBytes);
  CHECK(f.cache.figures().kept_bytes == 20 * test::kPageBytes);
  CHECK(f.cache.figures().idle_bytes == 0);
  const uint64_t each = kv_bytes_for(f.model.groups(), kTextContext) - 20 * test::kPageBytes;
  CHECK(f.cache.figures().reserved_bytes == 8 * each);
}

TEST_CASE("two that compute the same page end up with one of them") {
  Fixture f;
  Text first = f.text(random_ids(100, 1)), second = f.text(random_ids(100, 1));
  REQUIRE(first.kv->adopt(std::span(first.ids).first(99)) == 0);
  REQUIRE(second.kv->adopt(std::span(second.ids).first(99)) == 0);
  CHECK(first.run(f.model) == f.model.expected(first.ids));
  second.kv->set_key("apart");
  CHECK(second.run(f.model) == f.model.expected(second.ids));
  CHECK(f.cache.figures().used_bytes == 14 * test::kPageBytes);
  Text third = f.text(first.ids, "apart");
  CHECK(third.run(f.model) == f.model.expected(third.ids));
  CHECK(third.n_adopted == 96);
}

TEST_CASE("rewinding into a shared page and going on differently disturbs nobody") {
  Fixture f;
  Text first = f.text(random_ids(150, 1)), second = f.text(random_ids(150, 1));
  first.run(f.model);
  second.run(f.model);
  second.kv->rewind(77);
  second.ids.resize(77);
  second.ids = joined(second.ids, random_ids(60, 9));
  CHECK(second.run(f.model) == f.model.expected(second.ids));
  first.kv->rewind(149);
  CHECK(first.run(f.model) == f.model.expected(first.ids));
}

TEST_CASE("pages of a step that failed are nobody's") {
  Fixture f;
  const std::vector<int32_t> ids = random_ids(300, 1);
  Text first = f.text({ids.begin(), ids.begin() + 40});
  first.run(f.model);
  REQUIRE(first.kv->prepare(100).is_ok());  // and no commit()
  SUBCASE("the end of the text is that of the last page in use") {
    first.end();
    Text second = f.text(ids);
    CHECK(second.run(f.model) == f.model.expected(ids));
    CHECK(second.n_adopted == 40);
  }
  SUBCASE("what others have computed meanwhile comes in their place") {
    first.kv->rewind(32);
    REQUIRE(first.kv->prepare(100).is_ok());
    Text second = f.text(ids);
    second.run(f.model);
    first.ids = ids;
    CHECK(first.run(f.model) == f.model.expected(ids));
    CHECK(first.n_adopted == 256);
  }
}

TEST_CASE("what no one holds goes by least recent use, beyond its budget") {
  Fixture f({0}, UINT64_MAX, 12 * test::kPageBytes);
  for (uint32_t i = 0; i < 3; ++i) {
    Text text = f.text(random_ids(64, i));
    text.run(f.model);
    text.end();
  }
  CHECK(f.cache.figures().idle_bytes == 12 * test::kPageBytes);
  Text again = f.text(random_ids(64, 0));
  again.run(f.model);
  CHECK(again.n_adopted == 63);
  again.end();
  Text more = f.text(random_ids(64, 7));
  more.run(f.model);
  more.end();
  CHECK(f.cache.figures().idle_bytes == 12 * test::kPageBytes);
  CHECK(f.tree.figures().n_nodes == 12);
  Text first = f.text(random_ids(64, 0)), second = f.text(random_ids(64, 1));
  first.run(f.model);
  second.run(f.model);
  CHECK(first.n_adopted == 63);
  CHECK(second.n_adopted == 0);
}

TEST_CASE("what is idle makes room for a sequence that needs the memory") {
  Fixture f({0}, 40 * test::kPageBytes);
  Text first = f.text(random_ids(500, 1));
  first.run(f.model);
  CHECK(KvSequence::create(f.cache, 33 * 5, &f.tree).status().code() == Code::kMemoryBudget);
  first.end();
  CHECK(f.cache.figures().kept_bytes == 32 * test::kPageBytes);
  Text second = f.text(random_ids(500, 2));
  CHECK(second.run(f.model) == f.model.expected(second.ids));
  CHECK(f.cache.figures().used_bytes <= 40 * test::kPageBytes);
}

TEST_CASE("windows keep what they see, and their other pages go first") {
  Fixture f({0, 40});
  const std::vector<int32_t> common = random_ids(500, 1);
  Text first = f.text(common);
  CHECK(first.run(f.model) == f.model.expected(first.ids));
  CHECK(f.cache.figures().idle_bytes > 0);
  Text second = f.text(joined(common, random_ids(30, 3)));
  CHECK(second.run(f.model) == f.model.expected(second.ids));
  CHECK(second.n_adopted == 496);
  second.end();
  f.tree.trim(UINT64_MAX);
  CHECK(f.cache.figures().idle_bytes == 0);
  Text third = f.text(joined(common, random_ids(30, 4)));
  CHECK(third.run(f.model) == f.model.expected(third.ids));
  CHECK(third.n_adopted >= 496);
  // In the middle the windows' pages are gone: the text can be followed there, but not left.
  Text fourth = f.text(joined({common.begin(), common.begin() + 300}, random_ids(30, 5)));
  CHECK(fourth.run(f.model) == f.model.expected(fourth.ids));
  CHECK(fourth.n_adopted == 0);
}

TEST_CASE("states are kept every 512 tokens and where turns and texts ended") {
  Fixture f({0, -3});
  const std::vector<int32_t> ids = random_ids(1100, 1);
  Text first = f.text({ids.begin(), ids.begin() + 1000}, "", kLongContext);
  const auto go_on = [&](std::ptrdiff_t n) {
    first.ids.assign(ids.begin(), ids.begin() + n);
    CHECK(first.run(f.model) == f.model.expected(first.ids));
  };
  go_on(300);
  CHECK(f.cache.figures().kept_bytes == 18 * test::kPageBytes);
  CHECK(f.n_known(ids, 290) == 0);

  SUBCASE("every 512 tokens") {
    go_on(1100);
    CHECK(f.cache.figures().kept_bytes == (68 + 1 + 2 * 2) * test::kPageBytes);  // one is idle
    CHECK(f.n_known(ids, 511) == 510 + 1);  // inside the page of a checkpoint, too
    CHECK(f.n_known(ids, 513) == 512);
    CHECK(f.n_known(ids, 1023) == 1023);
    CHECK(f.n_known(ids, 1090) == 1024);
  }
  SUBCASE("where a text ended") {
    go_on(1100);
    first.end();
    CHECK(f.n_known(ids, 1100) == 1100);
    CHECK(f.n_known(ids, 1090) == 1090);
    CHECK(f.n_known(ids, 1089) == 1024);  // would need the page before
    // Also when others have gone on from there.
    Text second = f.text(joined(ids, random_ids(100, 3)), "", kLongContext);
    CHECK(second.run(f.model) == f.model.expected(second.ids));
    CHECK(second.n_adopted == 1100);
    CHECK(f.n_known(ids, 1100) >= 1100);
  }
  SUBCASE("where a turn ended, inside a page and at its end") {
    for (const int n : {400, 407}) {
      CAPTURE(n);
      go_on(n);
      first.kv->end_turn();
      go_on(480);
      CHECK(f.n_known(ids, static_cast<size_t>(n)) == n);
      first.kv->rewind(n);
    }
  }
  SUBCASE("where a text ended at the end of a page") {
    go_on(416);
    first.end();
    CHECK(f.n_known(ids, 416) == 416);
    CHECK(f.n_known(ids, 431) == 416);
    // The states go before the pages that all texts need.
    f.tree.trim(1);
    CHECK(f.n_known(ids, 416) <= 416);
  }
  SUBCASE("far rewinds go back to one") {
    go_on(1100);
    first.kv->rewind(700);
    CHECK(first.kv->n_tokens() == 0);
    go_on(900);
    CHECK(first.n_adopted == 512);
  }
  SUBCASE("forks share them, and short rewinds cost nothing") {
    go_on(530);
    Text other{first.ids, first.kv->fork().take(), 0};
    for (Text* text : {&first, &other}) {
      text->kv->rewind(505);
      CHECK(text->kv->n_tokens() == 505);
      text->ids.resize(505);
      text->ids = joined(text->ids, random_ids(100, text == &first ? 4 : 5));
      CHECK(text->run(f.model) == f.model.expected(text->ids));
      CHECK(text->n_adopted == 0);
    }
    CHECK(f.n_known(ids, 530) == 512);
  }
  SUBCASE("and fresh pages without the states of their beginning are shared none the less") {
    go_on(530);
    std::vector<KvPages> pages(2);
    for (size_t group = 0; group < 2; ++group) {
      const KvPlan& plan = first.kv->plan();
      pages[group].first_page = plan.first_page(group);
      for (const PageId from : plan.held_pages(group)) {
        const auto number = pages[group].pages.size();
        pages[group].pages.push_back(f.cache.take(group, number).take());
        std::copy_n(f.cache.data(from), f.cache.page_bytes(from),
                    f.cache.data(pages[group].pages.back()));
      }
    }
    f.tree.trim(UINT64_MAX);
    Text second = f.text(first.ids, "another key", kLongContext);
    second.kv->swap_in(530, pages, true);
    second.ids = joined(second.ids, random_ids(60, 2));
    CHECK(second.run(f.model) == f.model.expected(second.ids));
    CHECK(second.kv->n_shared_pages() == 590 / kPageTokens);
  }
}

TEST_CASE("fresh pages take the place of all, and are shared only where ids alone give them") {
  for (const bool is_prefix : {true, false}) {
    CAPTURE(is_prefix);
    Fixture f;
    Text first = f.text(random_ids(100, 1)), second = f.text(random_ids(100, 1));
    first.run(f.model);
    KvPages pages;
    for (size_t i = 0; i < 7; ++i) {
      pages.pages.push_back(f.cache.take(0, i).take());
      std::copy_n(f.cache.data(first.kv->plan().held_pages(0)[i]), test::kPageBytes,
                  f.cache.data(pages.pages.back()));
    }
    second.kv->swap_in(100, std::span(&pages, 1), is_prefix);
    second.ids = joined(second.ids, random_ids(60, 2));
    CHECK(second.run(f.model) == f.model.expected(second.ids));
    CHECK(second.kv->n_shared_pages() == (is_prefix ? 10 : 0));
    second.kv->rewind(0);
    CHECK(second.run(f.model) == f.model.expected(second.ids));
    CHECK(second.n_adopted == (is_prefix ? 159 : 96));
  }
}

TEST_CASE("random texts that begin alike, rewind, fork and end give what they give alone") {
  std::mt19937 random(7);
  const auto seed = [&] { return static_cast<uint32_t>(random()); };
  const auto below = [&](size_t n) { return static_cast<size_t>(random()) % n; };
  for (int round = 0; round < 30; ++round) {
    CAPTURE(round);
    const bool has_states = round >= 24;
    const std::vector<int> windows = has_states       ? std::vector{0, 33, -5}
                                     : round % 2 == 0 ? std::vector{0, 0}
                                                      : std::vector{0, 33, 70};
    const int n_ctx = has_states ? kLongContext : kTextContext;
    const size_t n_common = has_states ? 450 : 100, n_most = has_states ? 1200 : 500;
    const uint64_t idle = round % 3 == 0 ? 0 : round % 3 == 1 ? 20'000 : UINT64_MAX;
    Fixture f(windows, 6 * kv_bytes_for(HashModel(windows).groups(), n_ctx), idle);
    std::vector<Text> texts;
    for (int i = 0; i < 60; ++i) {
      const size_t what = below(8);
      if (texts.size() < 2 || (what == 0 && texts.size() < 5)) {
        std::vector<int32_t> ids =
            random_ids(n_common + below(200), static_cast<uint32_t>(below(3)));
        texts.push_back(f.text(joined(ids, random_ids(1 + below(40), seed())), "", n_ctx));
      }
      Text& text = texts[below(texts.size())];
      if (what == 1 && texts.size() < 5 && text.kv->n_tokens() > 0) {
        Text other{text.ids, text.kv->fork().take(), 0};
        other.ids.resize(static_cast<size_t>(other.kv->n_tokens()));
        texts.push_back(std::move(other));
        continue;
      }
      if (what == 2) {
        text.run(f.model);
        text.end();
        std::swap(text, texts.back());
        texts.pop_back();
        continue;
      }
      if (what == 3 && text.kv->n_tokens() > 1) {
        const size_t n = 1 + below(static_cast<size_t>(text.kv->n_tokens()));
        text.kv->rewind(static_cast<int>(n));
        text.ids.resize(n);
      }
      if (what == 4) text.kv->end_turn();
      if (text.ids.size() < n_most) text.ids = joined(text.ids, random_ids(1 + below(70), seed()));
      REQUIRE(text.run(f.model, 1 + static_cast<int>(below(48))) == f.model.expected(text.ids));
      const KvCacheFigures figures = f.cache.figures();
      REQUIRE(figures.idle_bytes <= idle);
      REQUIRE(figures.idle_bytes <= figures.kept_bytes);
      REQUIRE(figures.kept_bytes <= figures.used_bytes);
    }
    texts.clear();
    CHECK(f.cache.figures().reserved_bytes == 0);
    CHECK(f.cache.figures().idle_bytes == f.cache.figures().used_bytes);
    f.tree.trim(UINT64_MAX);
    CHECK(f.cache.figures().used_bytes == 0);
    CHECK(f.tree.figures().n_nodes == 0);
  }
}

}  // namespace edge
