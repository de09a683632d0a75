#include "runtime/kv_plan.h"

#include <random>
#include <vector>

#include "backends/kv_layout.h"
#include "doctest/doctest.h"

namespace edge {
namespace {

// Commits n tokens the way a session does; `next_page` numbers the pages.
Status advance(KvPlan& plan, int n, PageId& next_page) {
  EDGE_ASSIGN_OR_RETURN(const KvStepPlan step, plan.plan(n));
  for (int i = 0; i < step.n_new_pages; ++i) plan.attach(next_page++);
  return plan.commit(n);
}

}  // namespace

TEST_CASE("planning a step changes nothing") {
  KvPlan plan(100);
  const KvStepPlan first = plan.plan(33).take();
  CHECK(first.first_position == 0);
  CHECK(first.n_new_pages == 2);
  CHECK(plan.n_tokens() == 0);
  CHECK(plan.pages().empty());
}

TEST_CASE("a step past n_ctx is a context overflow and the last position can be used") {
  KvPlan plan(64);
  PageId next_page = 0;
  REQUIRE(advance(plan, 60, next_page).is_ok());
  CHECK(plan.plan(5).status().code() == Code::kContextOverflow);
  CHECK(plan.plan(INT32_MAX).status().code() == Code::kContextOverflow);
  CHECK(advance(plan, 4, next_page).is_ok());
  CHECK(plan.plan(1).status().code() == Code::kContextOverflow);
  CHECK(plan.pages().size() == 2);
}

TEST_CASE("tokens cannot be committed to pages that are not attached") {
  KvPlan plan(64);
  CHECK(plan.commit(1).code() == Code::kInvalidArgument);
  CHECK(plan.plan(0).status().code() == Code::kInvalidArgument);
  CHECK(plan.plan(-1).status().code() == Code::kInvalidArgument);
}

TEST_CASE("rewind keeps the page of the last kept token and lets go of the rest") {
  KvPlan plan(128);
  PageId next_page = 10;
  REQUIRE(advance(plan, 97, next_page).is_ok());
  CHECK(plan.rewind(98).status().code() == Code::kInvalidArgument);
  CHECK(plan.rewind(-1).status().code() == Code::kInvalidArgument);
  CHECK(plan.rewind(33).take() == std::vector<PageId>{13, 12});
  CHECK(plan.rewind(32).take() == std::vector<PageId>{11});
  CHECK(plan.rewind(0).take() == std::vector<PageId>{10});
}

TEST_CASE("pages attached for a step that failed are used by the next one") {
  KvPlan plan(128);
  REQUIRE(plan.plan(40).take().n_new_pages == 2);
  plan.attach(7);
  plan.attach(8);
  CHECK(plan.plan(40).take().n_new_pages == 0);
  CHECK(plan.plan(65).take().n_new_pages == 1);
  CHECK(plan.rewind(0).take() == std::vector<PageId>{8, 7});
}

// The model: which page holds each token, as a plain list with one entry per token.
TEST_CASE("random histories agree with a list of one page per token") {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    const int n_ctx = 1 + static_cast<int>(random() % 300);
    KvPlan plan(n_ctx);
    std::vector<PageId> page_of_token;
    PageId next_page = 0;
    for (int action = 0; action < 60; ++action) {
      const size_t n_tokens = page_of_token.size();
      if (random() % 3 != 0) {
        const int n = 1 + static_cast<int>(random() % 70);
        const bool fits = n_tokens + static_cast<size_t>(n) <= static_cast<size_t>(n_ctx);
        PageId next_in_list = next_page;
        REQUIRE(advance(plan, n, next_page).is_ok() == fits);
        for (int i = 0; fits && i < n; ++i) {
          const bool starts_page = page_of_token.size() % kPageTokens == 0;
          page_of_token.push_back(starts_page ? next_in_list++ : page_of_token.back());
        }
        REQUIRE(next_in_list == next_page);
      } else {
        const size_t n_kept = random() % (n_tokens + 1);
        std::vector<PageId> let_go;
        while (page_of_token.size() > n_kept) {
          const PageId page = page_of_token.back();
          page_of_token.pop_back();
          if (page_of_token.empty() || page_of_token.back() != page) let_go.push_back(page);
        }
        REQUIRE(plan.rewind(static_cast<int>(n_kept)).take() == let_go);
      }
      REQUIRE(plan.n_tokens() == static_cast<int>(page_of_token.size()));
      for (size_t i = 0; i < page_of_token.size(); ++i) {
        REQUIRE(plan.pages()[i / kPageTokens] == page_of_token[i]);
      }
    }
  }
}

}  // namespace edge
