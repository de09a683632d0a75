#include "runtime/kv_plan.h"

#include <algorithm>
#include <string>

#include "base/checked.h"

namespace edge {
namespace {

// Where the first page that a table holds comes to be. One that begins inside the gap has let go of
// the pages before it, which are kept, and begins behind them.
int page_after_drop(int page, int first, int n_pages) {
  return page >= first + n_pages ? page - n_pages : std::min(page, first);
}

}  // namespace

int first_seen(int window, int position) {
  return window > 0 && window <= position ? position - window + 1 : 0;
}

int n_pages_for(int n_tokens) { return n_tokens / kPageTokens + (n_tokens % kPageTokens != 0); }

int most_pages(int window, int n_ctx) {
  const int n_all = n_pages_for(n_ctx);
  if (window == 0 || window >= n_ctx) return n_all;
  // Positions in a row that trim() keeps, beginning at the last of a page at worst.
  const int64_t n_positions = int64_t{window} + kKeptTokens - 1;
  return static_cast<int>(std::min<int64_t>(n_all, (n_positions - 2) / kPageTokens + 2));
}

uint64_t kv_bytes_for(std::span<const KvGroup> groups, int n_ctx) {
  uint64_t total = 0;
  for (const KvGroup& group : groups) {
    const auto n_pages = static_cast<uint64_t>(most_pages(group.window, n_ctx));
    const uint64_t n_first = std::min(n_pages, uint64_t{kFirstPages});
    const auto first_bytes = checked_mul(n_first, std::max(group.page_bytes, group.bytes_of(0)));
    const auto n_bytes = checked_mul(n_pages - n_first, group.page_bytes);
    const auto of_group =
        first_bytes && n_bytes ? checked_add(*first_bytes, *n_bytes) : std::nullopt;
    const auto sum = of_group ? checked_add(total, *of_group) : std::nullopt;
    if (!sum) return UINT64_MAX;
    total = *sum;
  }
  return total;
}

int fitting_n_ctx(std::span<const KvGroup> groups, uint64_t n_bytes, int n_ctx) {
  int low = 0;  // pages that fit
  int high = n_pages_for(n_ctx);
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    (kv_bytes_for(groups, middle * kPageTokens) <= n_bytes ? low : high) = middle;
  }
  return low * kPageTokens;
}

// All the room at once: attach() cannot fail half-way.
KvPlan::KvPlan(int n_ctx, std::span<const KvGroup> groups) : n_ctx_(n_ctx) {
  for (const KvGroup& group : groups) {
    tables_.push_back({.window = group.window, .first_page = 0, .pages = {}});
    tables_.back().pages.reserve(static_cast<size_t>(n_pages_for(n_ctx)));
  }
}

std::span<const PageId> KvPlan::held_pages(size_t group) const {
  const Table& table = tables_[group];
  return std::span(table.pages).subspan(static_cast<size_t>(table.first_page));
}

Result<KvStepPlan> KvPlan::plan(int n_new_tokens) const {
  if (n_new_tokens <= 0) {
    return {Code::kInvalidArgument, "a step needs at least one token"};
  }
  if (n_new_tokens > n_ctx_ - n_tokens_) {
    return {Code::kContextOverflow, std::to_string(n_tokens_) + " tokens and " +
                                        std::to_string(n_new_tokens) +
                                        " more exceed the context of " + std::to_string(n_ctx_) +
                                        "; rewind, or make a session with a larger n_ctx"};
  }
  if (n_new_tokens > kKeptTokens) {
    return {Code::kInvalidArgument, "a step of " + std::to_string(n_new_tokens) +
                                        " tokens; it must have at most " +
                                        std::to_string(kKeptTokens)};
  }
  return KvStepPlan{n_tokens_, n_new_tokens, n_pages_for(n_tokens_ + n_new_tokens)};
}

void KvPlan::skip(size_t group) {
  Table& table = tables_[group];
  table.pages.push_back(0);
  table.first_page = static_cast<int>(table.pages.size());
}

std::vector<KvPage> KvPlan::trim(const KvStepPlan& step) {
  std::vector<KvPage> let_go;
  const int rewound = step.first_position + step.n_new_tokens - kKeptTokens;
  for (size_t group = 0; group < tables_.size(); ++group) {
    const int first_kept = first_seen(tables_[group].window, rewound) / kPageTokens;
    const std::vector<KvPage> of_group = let_go_before(group, first_kept);
    let_go.insert(let_go.end(), of_group.begin(), of_group.end());
  }
  return let_go;
}

std::vector<KvPage> KvPlan::let_go_before(size_t group, int first) {
  Table& table = tables_[group];
  std::vector<KvPage> let_go;
  while (table.first_page < first) {
    const auto number = static_cast<size_t>(table.first_page++);
    let_go.push_back({group, number, table.pages[number]});
  }
  return let_go;
}

Status KvPlan::commit(int n_new_tokens) {
  EDGE_ASSIGN_OR_RETURN(const KvStepPlan step, plan(n_new_tokens));
  for (size_t group = 0; group < tables_.size(); ++group) {
    if (n_pages(group) >= step.n_pages) continue;
    return {Code::kInvalidArgument, std::to_string(step.n_pages - n_pages(group)) +
                                        " pages of group " + std::to_string(group) +
                                        " are not attached"};
  }
  n_tokens_ += n_new_tokens;
  return Status::ok();
}

bool KvPlan::is_whole_at(int n_tokens) const {
  return std::all_of(tables_.begin(), tables_.end(), [n_tokens](const Table& table) {
    return table.first_page * kPageTokens <= first_seen(table.window, n_tokens);
  });
}

Status KvPlan::check_drop(int first, int n_pages) const {
  const int end = first + n_pages;
  if (first < kFirstPages || n_pages < 1 || int64_t{end} * kPageTokens > n_tokens_) {
    return {Code::kInvalidArgument, "pages " + std::to_string(first) + " to " +
                                        std::to_string(end - 1) + " cannot be dropped: the first " +
                                        std::to_string(kFirstPages) +
                                        " stay, and pages must be full; there are " +
                                        std::to_string(n_tokens_) + " tokens"};
  }
  const int n_left = n_tokens_ - n_pages * kPageTokens;
  for (const Table& table : tables_) {
    const int first_page = page_after_drop(table.first_page, first, n_pages);
    if (first_page * kPageTokens <= first_seen(table.window, n_left)) continue;
    return {Code::kFeatureUnsupported,
            "a layer sees " + std::to_string(table.window) + " tokens back from " +
                std::to_string(n_left) +
                ", where those kept first are gone from its pages; drop fewer tokens"};
  }
  return Status::ok();
}

Result<std::vector<KvPage>> KvPlan::drop(int first, int n_pages) {
  EDGE_RETURN_IF_ERROR(check_drop(first, n_pages));
  const int end = first + n_pages;
  std::vector<KvPage> let_go;
  for (size_t group = 0; group < tables_.size(); ++group) {
    Table& table = tables_[group];
    for (int page = std::max(first, table.first_page); page < end; ++page) {
      let_go.push_back({group, static_cast<size_t>(page), table.pages[static_cast<size_t>(page)]});
    }
    table.pages.erase(table.pages.begin() + first, table.pages.begin() + end);
    table.first_page = page_after_drop(table.first_page, first, n_pages);
  }
  n_tokens_ -= n_pages * kPageTokens;
  return let_go;
}

std::vector<KvPage> KvPlan::rewind(int n_tokens) {
  if (!is_whole_at(n_tokens)) n_tokens = 0;
  std::vector<KvPage> let_go;
  const size_t n_kept = static_cast<size_t>(n_pages_for(n_tokens));
  for (size_t group = 0; group < tables_.size(); ++group) {
    Table& table = tables_[group];
    while (table.pages.size() > n_kept) {
      const size_t number = table.pages.size() - 1;
      if (number >= static_cast<size_t>(table.first_page)) {
        let_go.push_back({group, number, table.pages[number]});
      }
      table.pages.pop_back();
    }
    table.first_page = std::min(table.first_page, static_cast<int>(n_kept));
  }
  n_tokens_ = n_tokens;
  return let_go;
}

}  // namespace edge
