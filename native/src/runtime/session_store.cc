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

}  // namespace

Status Session::save(const std::string& path, const SessionIdentity& identity,
                     std::string_view note, int n_threads) const {
  if (n_pending() > 0) {
    return {Code::kInvalidArgument,
            std::to_string(n_pending()) + " tokens are pending; run() or rewind() before save()"};
  }
  SessionContent content{.identity = identity,
                         .ids = token_ids(),
                         .n_kv_tokens = kv_->n_tokens(),
                         .logits = {},
                         .note = note,
                         .groups = {},
                         .pages = {}};
  if (logits_at_ == n_done_) content.logits = logits_;
  for (const KvGroup& group : kv_->groups()) content.groups.push_back(saved_group(group));
  for (const auto& [group, number, bytes] : kv_->pages()) {
    SessionGroup& saved = content.groups[group];
    if (static_cast<int>(number) >= n_pages_for(content.n_kv_tokens)) continue;  // of a failed step
    if (saved.n_pages++ == 0) saved.first_page = static_cast<int>(number);
    content.pages.push_back(bytes);
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
  EDGE_RETURN_IF_ERROR(check_groups(file, kv_->groups()));
  const std::span<const int32_t> ids = file.ids();
  const bool fits_logits =
      file.logits().empty() || file.logits().size() == static_cast<size_t>(model_.n_vocab());
  if (!fits_logits) {
    return {Code::kSessionInvalid, file.path() + ": has " + std::to_string(file.logits().size()) +
                                       " logits for a vocabulary of " +
                                       std::to_string(model_.n_vocab())};
  }
  if (Status status = append(ids); !status.is_ok()) return status.with_context(file.path());
  tokens_.clear();  // checked, not yet there
  std::vector<int> first_pages;
  for (const SessionGroup& group : file.groups()) first_pages.push_back(group.first_page);
  const auto fill = [&](std::span<const KvPageBytes<std::byte>> pages) {
    std::mutex mutex;
    Status first_failure;
    parallel_for(n_threads, static_cast<int64_t>(pages.size()), [&](int64_t i, int) {
      const auto at = static_cast<size_t>(i);
      Status status = file.read_page(at, pages[at].bytes);
      if (status.is_ok()) return;
      const std::lock_guard lock(mutex);
      first_failure = std::move(status);
    });
    return first_failure;
  };
  EDGE_RETURN_IF_ERROR(kv_->restore(file.n_kv_tokens(), first_pages, fill));
  tokens_.assign(ids.begin(), ids.end());
  n_done_ = static_cast<int>(ids.size());
  logits_.assign(file.logits().begin(), file.logits().end());
  logits_at_ = logits_.empty() ? -1 : n_done_;
  return {};
}

}  // namespace edge
