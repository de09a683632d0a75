#include "runtime/kv_plan.h"

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "doctest/doctest.h"

namespace edge {
namespace {

const std::vector<KvGroup> kPlain = {{.window = 0, .page_bytes = 1}};

// Commits n tokens the way a session does; `next_page` numbers the pages.
Status advance(KvPlan& plan, int n, PageId& next_page) {
  EDGE_ASSIGN_OR_RETURN(const KvStepPlan step, plan.plan(n));
  plan.trim(step);
  for (size_t group = 0; group < plan.n_groups(); ++group) {
    while (plan.n_pages(group) < step.n_pages) plan.attach(group, next_page++);
  }
  return plan.commit(n);
}

std::vector<PageId> ids_of(const std::vector<KvPage>& pages) {
  std::vector<PageId> ids;
  for (const KvPage& page : pages) ids.push_back(page.id);
  return ids;
}

// Where pages by number are when n of them, from `first` on, are taken out: none of these is there.
std::map<int, PageId> without(const std::map<int, PageId>& pages, int first, int n) {
  std::map<int, PageId> left;
  for (const auto& [number, page] : pages) left[number < first ? number : number - n] = page;
  return left;
}

}  // namespace

TEST_CASE("planning a step changes nothing") {
  KvPlan plan(100, kPlain);
  const KvStepPlan first = plan.plan(33).take();
  CHECK(first.first_position == 0);
  CHECK(first.n_pages == 3);
  CHECK(plan.n_tokens() == 0);
  CHECK(plan.n_pages(0) == 0);
}

TEST_CASE("a step past n_ctx is a context overflow and the last position can be used") {
  KvPlan plan(64, kPlain);
  PageId next_page = 0;
  REQUIRE(advance(plan, 60, next_page).is_ok());
  CHECK(plan.plan(5).status().code() == Code::kContextOverflow);
  CHECK(plan.plan(INT32_MAX).status().code() == Code::kContextOverflow);
  CHECK(advance(plan, 4, next_page).is_ok());
  CHECK(plan.plan(1).status().code() == Code::kContextOverflow);
  CHECK(plan.n_pages(0) == 4);
}

TEST_CASE("tokens cannot be committed to pages that are not attached") {
  const std::vector<KvGroup> two = {{0, 1}, {8, 1}};
  KvPlan plan(1000, two);
  CHECK(plan.commit(1).code() == Code::kInvalidArgument);
  plan.attach(0, 0);
  CHECK(plan.commit(1).code() == Code::kInvalidArgument);
  plan.attach(1, 0);
  CHECK(plan.commit(1).is_ok());
  CHECK(plan.plan(0).status().code() == Code::kInvalidArgument);
  CHECK(plan.plan(-1).status().code() == Code::kInvalidArgument);
  CHECK(plan.plan(kKeptTokens).is_ok());
  CHECK(plan.plan(kKeptTokens + 1).status().code() == Code::kInvalidArgument);
}

TEST_CASE("rewind keeps the page of the last kept token and lets go of the rest") {
  KvPlan plan(128, kPlain);
  PageId next_page = 10;
  REQUIRE(advance(plan, 97, next_page).is_ok());
  CHECK(ids_of(plan.rewind(33)) == std::vector<PageId>{16, 15, 14, 13});
  CHECK(ids_of(plan.rewind(32)) == std::vector<PageId>{12});
  CHECK(ids_of(plan.rewind(0)) == std::vector<PageId>{11, 10});
}

TEST_CASE("pages attached for a step that failed are used by the next one") {
  KvPlan plan(128, kPlain);
  REQUIRE(plan.plan(40).take().n_pages == 3);
  for (const PageId page : {7, 8, 9}) plan.attach(0, page);
  CHECK(plan.plan(40).take().n_pages == plan.n_pages(0));
  CHECK(plan.plan(49).take().n_pages == plan.n_pages(0) + 1);
  CHECK(ids_of(plan.rewind(0)) == std::vector<PageId>{9, 8, 7});
}

TEST_CASE("a window lets go of what neither the next step nor a rewind of 128 tokens sees") {
  const std::vector<KvGroup> groups = {{0, 1}, {40, 1}};
  KvPlan plan(1000, groups);
  PageId next_page = 0;
  for (int n = 0; n < 500; n += 100) REQUIRE(advance(plan, 100, next_page).is_ok());
  CHECK(plan.first_page(0) == 0);
  CHECK(plan.first_page(1) == (500 - kKeptTokens - 40 + 1) / kPageTokens);
  CHECK(plan.held_pages(1).size() == size_t(32 - 20));
  CHECK(plan.trim(plan.plan(2).take()).empty());
  const std::vector<KvPage> next = plan.trim(plan.plan(3).take());
  REQUIRE(next.size() == 1);  // the first position kept is 336, of page 21
  CHECK(next[0].group == 1);
  CHECK(next[0].number == 20);
}

TEST_CASE("a rewind within what is kept costs nothing, and one farther back everything") {
  const std::vector<KvGroup> groups = {{0, 1}, {40, 1}};
  PageId next_page = 0;
  for (const int n_kept : {500, 372, 359, 358, 40, 1}) {
    CAPTURE(n_kept);
    KvPlan plan(1000, groups);
    for (int n = 0; n < 500; n += 100) REQUIRE(advance(plan, 100, next_page).is_ok());
    const std::vector<KvPage> let_go = plan.rewind(n_kept);
    if (n_kept >= 320 + 40 - 1) {  // 320: the first position of the first page that is there
      CHECK(plan.n_tokens() == n_kept);
      CHECK(plan.first_page(1) == 20);
      CHECK(let_go.size() == static_cast<size_t>(2 * (32 - n_pages_for(n_kept))));
    } else {
      CHECK(plan.n_tokens() == 0);
      CHECK(plan.first_page(1) == 0);
      CHECK(let_go.size() == 32 + 12);
    }
    CHECK(advance(plan, 100, next_page).is_ok());
  }
}

TEST_CASE("within the first window every rewind costs nothing") {
  const std::vector<KvGroup> groups = {{300, 1}};
  KvPlan plan(1000, groups);
  PageId next_page = 0;
  for (int n = 0; n < 427; n += 61) REQUIRE(advance(plan, 61, next_page).is_ok());
  for (int n = 426; n > 0; n -= 7) {
    plan.rewind(n);
    CHECK(plan.n_tokens() == n);
  }
}

TEST_CASE("the most pages of a window are what it holds at worst, and never more") {
  for (const int window : {1, 2, 31, 32, 33, 100, 128, 513}) {
    CAPTURE(window);
    const std::vector<KvGroup> groups = {{window, 1}};
    size_t n_most = 0;
    for (const int n_rows : {1, 2, 128, 100}) {
      KvPlan plan(1300, groups);
      PageId next_page = 0;
      for (int n = 0; n + n_rows <= 1300; n += n_rows) {
        REQUIRE(advance(plan, n_rows, next_page).is_ok());
        n_most = std::max(n_most, plan.held_pages(0).size());
      }
    }
    CHECK(n_most == static_cast<size_t>(most_pages(window, 1300)));
  }
  CHECK(most_pages(0, 1300) == 82);
  CHECK(most_pages(1300, 1300) == 82);
  CHECK(most_pages(64, 33) == 3);
  CHECK(most_pages(1, INT32_MAX) == 9);
  CHECK(most_pages(INT32_MAX - 1, INT32_MAX) == INT32_MAX / 16 + 1);
}

TEST_CASE("bytes of a context are those of all groups, and what fits is the inverse") {
  const std::vector<KvGroup> groups = {{0, 10}, {64, 1000}};
  CHECK(kv_bytes_for(groups, 0) == 0);
  CHECK(kv_bytes_for(groups, 33) == 3030);
  CHECK(kv_bytes_for(groups, 3200) == 2000 + 13'000);
  CHECK(fitting_n_ctx(groups, 15'000, 100'000) == 3200);
  CHECK(fitting_n_ctx(groups, 15'009, 100'000) == 3200);
  CHECK(fitting_n_ctx(groups, 14'999, 100'000) == 3184);
  CHECK(fitting_n_ctx(groups, 1010, 100'000) == 16);
  CHECK(fitting_n_ctx(groups, 1009, 100'000) == 0);
  const std::vector<KvGroup> larger_first = {{0, 10, 25}};
  const uint64_t n_bytes[] = {25, 25, 50, 50, 60, 60, 70};
  for (int half = 0; half < 7; ++half) {
    CHECK(kv_bytes_for(larger_first, 8 * half + 1) == n_bytes[half]);
  }
  const std::vector<KvGroup> huge = {{0, SIZE_MAX / 2}};
  CHECK(kv_bytes_for(huge, INT32_MAX) == UINT64_MAX);
  CHECK(fitting_n_ctx(huge, UINT64_MAX - 1, INT32_MAX) == 32);
}

// The model: which page holds each position of each group, as a plain map, and by itself what a
// query sees.
TEST_CASE("random histories agree with a map of one page per position") {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    const int n_ctx = 1 + static_cast<int>(random() % 900);
    const std::vector<KvGroup> groups = {{0, 1}, {2 + static_cast<int>(random() % 150), 1}};
    KvPlan plan(n_ctx, groups);
    std::vector<std::map<int, PageId>> page_of(2);  // by number
    PageId next_page = 0;
    int n_tokens = 0;
    const auto sees_all = [&](int n) {  // what a query at n sees before itself
      for (int position = std::max(0, n - groups[1].window + 1); position < n; ++position) {
        if (!page_of[1].contains(position / kPageTokens)) return false;
      }
      return true;
    };
    for (int action = 0; action < 60; ++action) {
      const Result<KvStepPlan> step = plan.plan(1 + static_cast<int>(random() % 128));
      if (random() % 4 != 0 && step.is_ok()) {
        for (const KvPage& page : plan.trim(step.value())) {
          REQUIRE(page_of[page.group].at(static_cast<int>(page.number)) == page.id);
          page_of[page.group].erase(static_cast<int>(page.number));
        }
        for (size_t group = 0; group < 2; ++group) {
          while (plan.n_pages(group) < step.value().n_pages) {
            page_of[group][plan.n_pages(group)] = next_page;
            plan.attach(group, next_page++);
          }
        }
        if (random() % 8 == 0) continue;  // the step fails
        REQUIRE(plan.commit(step.value().n_new_tokens).is_ok());
        n_tokens += step.value().n_new_tokens;
      } else if (random() % 3 == 0) {
        const int first = static_cast<int>(random() % 6);
        const int n = static_cast<int>(random() % 8);
        Result<std::vector<KvPage>> dropped = plan.drop(first, n);
        const bool is_legal = first >= 2 && n >= 1 && (first + n) * 16 <= n_tokens;
        if (!dropped.is_ok()) {
          const Code code = is_legal ? Code::kFeatureUnsupported : Code::kInvalidArgument;
          REQUIRE(dropped.status().code() == code);
          continue;
        }
        REQUIRE(is_legal);
        for (const KvPage& page : dropped.value()) {
          REQUIRE(page_of[page.group].at(static_cast<int>(page.number)) == page.id);
          page_of[page.group].erase(static_cast<int>(page.number));
        }
        for (auto& pages : page_of) pages = without(pages, first, n);
        n_tokens -= 16 * n;
      } else {
        const int back = static_cast<int>(random() % (random() % 2 == 0 ? 40 : 900));
        const int wanted = std::max(0, n_tokens - back);
        n_tokens = sees_all(wanted) ? wanted : 0;
        for (const KvPage& page : plan.rewind(wanted)) {
          REQUIRE(page_of[page.group].at(static_cast<int>(page.number)) == page.id);
          page_of[page.group].erase(static_cast<int>(page.number));
        }
      }
      REQUIRE(plan.n_tokens() == n_tokens);
      REQUIRE(sees_all(n_tokens));
      for (size_t group = 0; group < 2; ++group) {
        const std::span<const PageId> held = plan.held_pages(group);
        REQUIRE(held.size() == page_of[group].size());
        REQUIRE(held.size() <= static_cast<size_t>(most_pages(groups[group].window, n_ctx)));
        for (size_t i = 0; i < held.size(); ++i) {
          REQUIRE(page_of[group].at(plan.first_page(group) + static_cast<int>(i)) == held[i]);
        }
      }
    }
  }
}

}  // namespace edge
