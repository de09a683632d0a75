// Session: save() and restore().
#include <mutex>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "runtime/session.h"

namespace edge {
namespace {

SessionGroup saved_group(const KvGroup& group) {
  return {.window = group.window,
          .page_bytes = group.page_bytes,
          .first_page_bytes = group.bytes_of(0)};
}

Status check_groups(const SessionFile& file, std::span<const KvGroup> groups) {
  bool is_same = file.groups().size() == groups.size();
  for (size_t g = 0; is_same && g < groups.size(); ++g) {
    const SessionGroup& saved = file.groups()[g];
    const SessionGroup wanted = saved_group(groups[g]);
    is_same = saved.window == wanted.window && saved.page_bytes == wanted.page_bytes &&
              saved.first_page_bytes == wanted.first_page_bytes;
  }
  if (is_same) return {};
  return {Code::kSessionInvalid,
          file.path() + ": its KV pages are not those of the model that it names"};
}

Status read_pages(const KvCache& cache, const SessionFile& file, std::span<const PageId> pages,
                  int n_threads) {
  std::mutex mutex;
  Status failure;
  parallel_for(n_threads, static_cast<int64_t>(pages.size()), [&](int64_t i, int) {
    const PageId page = pages[static_cast<size_t>(i)];
    const std::span<std::byte> bytes(cache.data(page), cache.page_bytes(page));
    Status status = file.read_page(static_cast<size_t>(i), bytes);
    if (status.is_ok()) return;
    const std::lock_guard lock(mutex);
    failure = std::move(status);
  });
  return failure;
}

// The pages of a file in pages of the cache, with one owner each, or none.
Result<std::vector<KvPages>> fresh_pages(KvCache& cache, const SessionFile& file, int n_threads) {
  std::vector<KvPages> by_group;
  std::vector<PageId> all;
  Status status;
  for (size_t group = 0; group < file.groups().size(); ++group) {
    const SessionGroup& saved = file.groups()[group];
    by_group.push_back({.first_page = saved.first_page, .pages = {}});
    for (int i = 0; i < saved.n_pages && status.is_ok(); ++i) {
      Result<PageId> page = cache.take(group, static_cast<size_t>(saved.first_page + i));
      status = page.status();
      if (!status.is_ok()) break;
      by_group.back().pages.push_back(page.value());
      all.push_back(page.value());
    }
  }
  if (status.is_ok()) status = read_pages(cache, file, all, n_threads);
  if (status.is_ok()) return by_group;
  for (const PageId page : all) cache.release(page);
  return status;
}

}  // namespace

Status Session::save(const std::string& path, const SessionIdentity& identity,
                     std::string_view note, int n_threads) {
  if (n_pending() > 0) {
    return {Code::kInvalidArgument,
            std::to_string(n_pending()) + " tokens are pending; run() or rewind() before save()"};
  }
  if (has_dropped_kv()) {
    return {Code::kFeatureUnsupported,
            "the KV is no longer what its tokens give: some were shifted or compressed out of it; "
            "rewind(0) and run() again before save()"};
  }
  EDGE_RETURN_IF_ERROR(bring_logits());
  const KvPlan& plan = kv_->plan();
  const KvCache& cache = kv_->cache();
  SessionContent content{.identity = identity,
                         .ids = token_ids(),
                         .n_kv_tokens = plan.n_tokens(),
                         .logits = {},
                         .note = note,
                         .groups = {},
                         .pages = {}};
  if (logits_at_ == n_done_) content.logits = last_logits();
  for (size_t group = 0; group < plan.n_groups(); ++group) {
    SessionGroup saved = saved_group(cache.groups()[group]);
    saved.first_page = plan.first_page(group);
    // A step that failed may have left one more.
    saved.n_pages = n_pages_for(plan.n_tokens()) - saved.first_page;
    content.groups.push_back(saved);
    for (const PageId page : plan.held_pages(group).first(static_cast<size_t>(saved.n_pages))) {
      content.pages.emplace_back(cache.data(page), cache.page_bytes(page));
    }
  }
  return write_session_file(path, content, n_threads);
}

Status Session::restore(const SessionFile& file, const SessionIdentity& identity, int n_threads) {
  if (!tokens_.empty()) {
    return {Code::kInvalidArgument, "restore() needs a session without tokens; make a new one"};
  }
  if (Status status = file.identity().check_same(identity); !status.is_ok()) {
    return status.with_context(file.path());
  }
  EDGE_RETURN_IF_ERROR(check_groups(file, kv_->cache().groups()));
  const std::span<const int32_t> ids = file.ids();
  const bool fits_logits =
      file.logits().empty() || file.logits().size() == static_cast<size_t>(model().n_vocab());
  if (!fits_logits) {
    return {Code::kSessionInvalid, file.path() + ": has " + std::to_string(file.logits().size()) +
                                       " logits for a vocabulary of " +
                                       std::to_string(model().n_vocab())};
  }
  if (Status status = append(ids); !status.is_ok()) return status.with_context(file.path());
  tokens_.clear();  // checked, not yet there
  EDGE_ASSIGN_OR_RETURN(const std::vector<KvPages> pages,
                        fresh_pages(kv_->cache(), file, n_threads));
  kv_->swap_in(file.n_kv_tokens(), pages, true);
  is_decoding_ = false;
  tokens_.assign(ids.begin(), ids.end());
  n_done_ = static_cast<int>(ids.size());
  logits_.assign(file.logits().begin(), file.logits().end());
  logits_at_ = logits_.empty() ? -1 : n_done_;
  logits_row_ = 0;
  has_tops_ = false;
  return {};
}

}  // namespace edge
