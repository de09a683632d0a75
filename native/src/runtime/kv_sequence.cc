#include "runtime/kv_sequence.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

namespace edge {

KvSequence::KvSequence(KvCache& cache, int n_ctx, PrefixTree* tree, std::string_view key)
    : cache_(cache),
      tree_(tree),
      key_(key),
      plan_(n_ctx, cache.groups()),
      page_data_(cache.groups().size()) {
  for (std::vector<std::byte*>& pages : page_data_) {
    pages.reserve(static_cast<size_t>(n_pages_for(n_ctx)));  // so that tables_ stay true
    tables_.push_back({pages.data(), 0});
  }
  if (tree_ != nullptr) node_ = tree_->enter(key);
  stamp_anew();
}

// The slots hold what no step of this sequence has written.
void KvSequence::stamp_anew() {
  static std::atomic<uint64_t> last{0};
  stamp_ = ++last;
}

Result<std::unique_ptr<KvSequence>> KvSequence::create(KvCache& cache, int n_ctx, PrefixTree* tree,
                                                       std::string_view key,
                                                       uint64_t n_bytes_besides) {
  if (n_ctx < 1) {
    return {Code::kInvalidArgument,
            "n_ctx is " + std::to_string(n_ctx) + "; it must be at least 1"};
  }
  std::unique_ptr<KvSequence> sequence(new KvSequence(cache, n_ctx, tree, key));
  const auto reserve = [&] { return cache.reserve(n_ctx, n_bytes_besides); };
  EDGE_RETURN_IF_ERROR(tree != nullptr ? tree->with_room(reserve) : reserve());
  sequence->promised_bytes_ = kv_bytes_for(cache.groups(), n_ctx);
  sequence->n_bytes_besides_ = n_bytes_besides;
  return sequence;
}

KvSequence::~KvSequence() {
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    for (const PageId page : plan_.held_pages(group)) cache_.release(page);
  }
  cache_.unreserve(promised_bytes_, n_bytes_besides_);
  if (node_ != nullptr) {
    tree_->leave(node_);
  } else if (tree_ != nullptr) {
    tree_->enforce();
  }
}

uint64_t KvSequence::held_bytes() const {
  uint64_t n_bytes = 0;
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    for (const PageId page : plan_.held_pages(group)) n_bytes += cache_.page_bytes(page);
  }
  return n_bytes;
}

Status KvSequence::claim(uint64_t n_bytes, std::string_view what) {
  const auto claim = [&] { return cache_.claim(n_bytes, what); };
  return tree_ != nullptr ? tree_->with_room(claim) : claim();
}

Result<KvStepPlan> KvSequence::prepare(int n_rows) {
  EDGE_ASSIGN_OR_RETURN(const KvStepPlan step, plan_.plan(n_rows));
  let_go(plan_.trim(step));
  EDGE_RETURN_IF_ERROR(make_room());
  EDGE_RETURN_IF_ERROR(own_last_page());
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    while (plan_.n_pages(group) < step.n_pages) {
      const auto number = static_cast<size_t>(plan_.n_pages(group));
      EDGE_ASSIGN_OR_RETURN(const PageId page, cache_.take(group, number));
      attach(group, page);
    }
  }
  return step;
}

// Pages that were given back to the tree count as the sequence's own again.
Status KvSequence::make_room() {
  if (tree_ == nullptr) return Status::ok();
  return tree_->with_room([&]() -> Status {
    if (!cache_.is_over_budget()) return Status::ok();
    return {Code::kMemoryBudget,
            "pages that this sequence shared are still used by others, and there is no memory for "
            "its own; close other sessions or raise max_memory"};
  });
}

// Before writing to a page that others own, too.
Status KvSequence::own_last_page() {
  if (n_shared_pages_ == n_published_) return Status::ok();
  const auto number = static_cast<size_t>(n_published_);
  std::vector<PageId> pages = pages_at(n_published_);
  for (size_t group = 0; group < pages.size(); ++group) {
    if (!is_shared(group, number, pages[group])) pages[group] = kNoPage;
  }
  EDGE_ASSIGN_OR_RETURN(const std::vector<PageId> own, copies(pages, number));
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    if (own[group] == kNoPage) continue;
    put(group, number, own[group]);
    cache_.release(pages[group]);
    cache_.reclaim(cache_.page_bytes(own[group]));
    promised_bytes_ += cache_.page_bytes(own[group]);
  }
  n_shared_pages_ = n_published_;
  tree_->enforce();
  return Status::ok();
}

// Whether the tree has it in its account, and nobody may write to it.
bool KvSequence::is_shared(size_t group, size_t number, PageId page) const {
  if (number >= static_cast<size_t>(n_shared_pages_) || page == kNoPage) return false;
  return !cache_.groups()[group].is_state || cache_.is_kept(page);
}

// Of pages with this number, one for each group or kNoPage.
Result<std::vector<PageId>> KvSequence::copies(std::span<const PageId> pages, size_t number) {
  std::vector<PageId> own;
  for (size_t group = 0; group < pages.size(); ++group) {
    if (pages[group] == kNoPage) {
      own.push_back(kNoPage);
      continue;
    }
    Result<PageId> page = cache_.take(group, number);
    if (!page.is_ok()) {
      for (const PageId taken : own) {
        if (taken != kNoPage) cache_.release(taken);
      }
      return page.status();
    }
    own.push_back(page.take());
    std::memcpy(cache_.data(own.back()), cache_.data(pages[group]), cache_.page_bytes(own.back()));
  }
  return own;
}

void KvSequence::attach(size_t group, PageId page) {
  plan_.attach(group, page);
  page_data_[group].push_back(cache_.data(page));
  tables_[group].n_pages = plan_.n_pages(group);
}

void KvSequence::put(size_t group, size_t number, PageId page) {
  plan_.replace(group, number, page);
  page_data_[group][number] = cache_.data(page);
}

void KvSequence::rewind(int n_tokens) {
  let_go(plan_.rewind(n_tokens));
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    tables_[group].n_pages = plan_.n_pages(group);
    page_data_[group].resize(static_cast<size_t>(plan_.n_pages(group)));
  }
  step_back(plan_.n_tokens() / kPageTokens);
  n_shared_pages_ = std::min(n_shared_pages_, n_pages_for(plan_.n_tokens()));
  if (tree_ == nullptr) return;
  if (plan_.n_tokens() == 0 && node_ == nullptr) node_ = tree_->enter(key_);
  tree_->enforce();
}

// To the node of the first n_pages.
void KvSequence::step_back(int n_pages) {
  for (; n_published_ > n_pages; --n_published_) {
    if (node_ != nullptr) tree_->up(node_);
  }
}

void KvSequence::let_go(std::span<const KvPage> pages) {
  bool was_shared = false;
  for (const KvPage& page : pages) {
    page_data_[page.group][page.number] = nullptr;
    if (is_shared(page.group, page.number, page.id)) {
      cache_.reclaim(cache_.page_bytes(page.id));
      promised_bytes_ += cache_.page_bytes(page.id);
      was_shared = true;
    }
    cache_.release(page.id);
  }
  if (was_shared) tree_->enforce();
}

// The tree's account has the page from now on.
void KvSequence::share(PageId page) {
  cache_.unclaim(cache_.page_bytes(page));
  promised_bytes_ -= cache_.page_bytes(page);
}

int KvSequence::adopt(std::span<const int32_t> ids) {
  const int n_before = plan_.n_tokens();
  const bool is_at_node =
      node_ != nullptr && n_before == n_published_ * kPageTokens && n_shared_pages_ == n_published_;
  const auto n_most = std::min(ids.size(), static_cast<size_t>(n_ctx()));
  if (!is_at_node || n_most <= static_cast<size_t>(n_before)) return 0;
  ids = ids.first(n_most);
  rewind(n_before);  // pages of a step that failed would stand before those to come
  const bool has_windows = cache_.groups().back().window > 0;
  PrefixMatch match;
  if (!has_windows || n_before == 0) match = share_known(ids);
  if (read_known(ids) == 0) copy_tail(match);
  for (const PageId page : match.tail) cache_.release(page);
  if (match.n_tail_tokens > 0) tree_->enforce();
  const int n_adopted = std::max(0, plan_.n_tokens() - n_before);
  if (n_adopted > 0) stamp_anew();
  return n_adopted;
}

// Whole pages that are in memory.
PrefixMatch KvSequence::share_known(std::span<const int32_t> ids) {
  const auto n_before = static_cast<size_t>(plan_.n_tokens());
  PrefixMatch match = tree_->match(node_, ids.subspan(n_before));
  for (size_t group = 0; group < match.groups.size(); ++group) {
    const KvPages& pages = match.groups[group];
    while (plan_.n_pages(group) < pages.first_page) {
      plan_.skip(group);
      page_data_[group].push_back(nullptr);
    }
    for (const PageId page : pages.pages) {
      attach(group, page);
      share(page);
    }
  }
  n_published_ += match.n_pages;
  n_shared_pages_ = n_published_;
  plan_.adopt(n_published_ * kPageTokens);
  return match;
}

// Whole pages that are on disk, as if they had been computed. Returns how many.
size_t KvSequence::read_known(std::span<const int32_t> ids) {
  KvDisk* const disk = tree_->disk();
  if (disk == nullptr) return 0;
  std::vector<KvDisk::Name> names{tree_->disk_name(*node_)};
  const auto n_before = static_cast<size_t>(n_tokens());
  const auto page_ids = [&](size_t i) {
    return ids.subspan(n_before + i * kPageTokens, kPageTokens);
  };
  size_t n_there = 0;  // up to a checkpoint, where the model has states
  for (size_t i = 0; n_before + (i + 1) * kPageTokens <= ids.size(); ++i) {
    names.push_back(KvDisk::after(names.back(), page_ids(i)));
    if (!disk->has(names.back())) break;
    if (!has_states() || is_checkpoint(n_published_ + static_cast<int>(i))) n_there = i + 1;
  }
  size_t n_read = 0;
  for (size_t i = 0; i < n_there && read_page(*disk, names[i + 1], page_ids(i)); ++i) {
    publish(ids);
    if (!has_states() || is_checkpoint(n_published_ - 1)) n_read = i + 1;
  }
  const auto n_whole = static_cast<int>(n_before + n_read * kPageTokens);
  if (n_tokens() > n_whole) rewind(n_whole);
  for (size_t i = n_read; i > 0; --i) disk->touch(names[i]);
  n_disk_tokens_ += static_cast<int64_t>(n_read) * kPageTokens;
  return n_read;
}

// The next page; where that fails, nothing has changed.
bool KvSequence::read_page(KvDisk& disk, const KvDisk::Name& name, std::span<const int32_t> ids) {
  const int n_before = n_tokens(), number = n_before / kPageTokens;
  if (!prepare(kPageTokens).is_ok()) return false;
  const std::vector<PageId> pages = pages_at(number);
  std::vector<std::span<std::byte>> bytes;
  for (size_t group = 0; group < pages.size(); ++group) {
    if (cache_.groups()[group].is_state && !is_checkpoint(number)) continue;
    bytes.emplace_back(cache_.data(pages[group]), cache_.page_bytes(pages[group]));
  }
  if (!disk.read(name, ids, bytes)) {
    rewind(n_before);  // lets go of the page
    return false;
  }
  for (size_t group = 0; group < pages.size(); ++group) {
    if (!cache_.groups()[group].is_state) continue;
    let_go(plan_.let_go_before(group, is_checkpoint(number) ? number : number + 1));
  }
  return commit(kPageTokens).is_ok();
}

// What the page after the known ones has in common with the text.
void KvSequence::copy_tail(const PrefixMatch& match) {
  if (match.n_tail_tokens == 0) return;
  const auto number = static_cast<size_t>(n_published_);
  Result<std::vector<PageId>> own = copies(match.tail, number);
  if (!own.is_ok()) return;
  const std::vector<PageId> pages = own.take();
  for (size_t group = 0; group < pages.size(); ++group) attach(group, pages[group]);
  plan_.adopt(n_tokens() + match.n_tail_tokens);
}

// One for each group; kNoPage where it was let go.
std::vector<PageId> KvSequence::pages_at(int number) const {
  std::vector<PageId> pages;
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    const auto at = static_cast<size_t>(number - plan_.first_page(group));
    const bool is_held = number >= plan_.first_page(group);
    pages.push_back(is_held ? plan_.held_pages(group)[at] : kNoPage);
  }
  return pages;
}

void KvSequence::publish(std::span<const int32_t> ids) {
  if (node_ == nullptr || n_shared_pages_ != n_published_) return;
  while ((n_published_ + 1) * kPageTokens <= plan_.n_tokens()) {
    const auto number = static_cast<size_t>(n_published_);
    std::vector<PageId> pages = pages_at(n_published_);
    for (size_t group = 0; group < pages.size(); ++group) {
      // Let go before it could be shared.
      if (pages[group] == kNoPage && !cache_.groups()[group].is_state) return;
    }
    const bool ends_here = n_published_ == turn_page_;
    tree_->insert(node_, ids.subspan(number * kPageTokens, kPageTokens), pages, ends_here);
    n_shared_pages_ = ++n_published_;
    for (size_t group = 0; group < pages.size(); ++group) {
      if (!is_shared(group, number, pages[group])) continue;
      put(group, number, pages[group]);
      share(pages[group]);
    }
  }
}

void KvSequence::end_turn() {
  if (!has_states() || node_ == nullptr || n_tokens() == 0) return;
  turn_page_ = (n_tokens() - 1) / kPageTokens;
  if (turn_page_ != n_published_ - 1 || n_shared_pages_ != n_published_) return;
  const std::vector<PageId> pages = pages_at(turn_page_);
  std::vector<bool> was_shared;
  for (size_t group = 0; group < pages.size(); ++group) {
    was_shared.push_back(is_shared(group, static_cast<size_t>(turn_page_), pages[group]));
  }
  tree_->keep_states(*node_, pages);
  for (size_t group = 0; group < pages.size(); ++group) {
    const bool is_now = is_shared(group, static_cast<size_t>(turn_page_), pages[group]);
    if (is_now && !was_shared[group]) share(pages[group]);
  }
}

void KvSequence::settle(std::span<const int32_t> ids) {
  publish(ids);
  if (n_tokens() % kPageTokens == 0) end_turn();
  const auto n_published_ids = static_cast<size_t>(n_published_) * kPageTokens;
  if (node_ == nullptr || n_shared_pages_ != n_published_ || ids.size() <= n_published_ids ||
      ids.size() - n_published_ids >= kPageTokens) {
    return;
  }
  tree_->insert_tail(node_, ids.subspan(n_published_ids), pages_at(n_published_));
}

Result<std::unique_ptr<KvSequence>> KvSequence::fork() const {
  EDGE_ASSIGN_OR_RETURN(std::unique_ptr<KvSequence> other,
                        KvSequence::create(cache_, n_ctx(), tree_, key_, n_bytes_besides_));
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    const auto first = static_cast<size_t>(plan_.first_page(group));
    for (size_t number = 0; number < first; ++number) {
      other->plan_.skip(group);
      other->page_data_[group].push_back(nullptr);
    }
    const std::span<const PageId> held = plan_.held_pages(group);
    for (size_t i = 0; i < held.size(); ++i) {
      if (is_shared(group, first + i, held[i])) {
        cache_.retain(held[i]);
        other->attach(group, held[i]);
        other->share(held[i]);
        continue;
      }
      EDGE_ASSIGN_OR_RETURN(const PageId own, cache_.take(group, first + i));
      std::memcpy(cache_.data(own), cache_.data(held[i]), cache_.page_bytes(own));
      other->attach(group, own);
    }
  }
  if (tree_ != nullptr) other->stand_at(node_, n_published_);
  other->n_shared_pages_ = n_shared_pages_;
  other->plan_.adopt(plan_.n_tokens());
  return other;
}

// node: null for a sequence that publishes nothing.
void KvSequence::stand_at(PrefixNode* node, int n_pages) {
  if (node != nullptr) tree_->join(node);
  tree_->leave(std::exchange(node_, node));
  n_published_ = n_pages;
}

void KvSequence::set_key(std::string_view key) {
  key_ = key;
  if (tree_ == nullptr) return;
  PrefixNode* const before = std::exchange(node_, tree_->enter(key));
  if (before != nullptr) tree_->leave(before);
}

void KvSequence::swap_in(int n_tokens, std::span<const KvPages> by_group, bool is_prefix) {
  rewind(0);
  for (size_t group = 0; group < by_group.size(); ++group) {
    while (plan_.n_pages(group) < by_group[group].first_page) {
      plan_.skip(group);
      page_data_[group].push_back(nullptr);
    }
    for (const PageId page : by_group[group].pages) attach(group, page);
  }
  plan_.adopt(n_tokens);
  stamp_anew();
  if (!is_prefix && node_ != nullptr) tree_->leave(std::exchange(node_, nullptr));
}

Status KvSequence::detach() {
  std::vector<KvPage> shared;
  uint64_t n_bytes = 0;
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    for (int number = plan_.first_page(group); number < n_shared_pages_; ++number) {
      const auto at = static_cast<size_t>(number - plan_.first_page(group));
      const PageId page = plan_.held_pages(group)[at];
      if (!is_shared(group, static_cast<size_t>(number), page)) continue;
      shared.push_back({group, static_cast<size_t>(number), page});
      n_bytes += cache_.page_bytes(shared.back().id);
    }
  }
  std::vector<PageId> own;
  const auto undo = [&](const Status& status) {
    for (const PageId page : own) cache_.release(page);
    cache_.unclaim(n_bytes);
    return status;
  };
  cache_.reclaim(n_bytes);
  if (const Status status = make_room(); !status.is_ok()) return undo(status);
  for (const KvPage& page : shared) {
    Result<PageId> taken = cache_.take(page.group, page.number);
    if (!taken.is_ok()) return undo(taken.status());
    own.push_back(taken.take());
    std::memcpy(cache_.data(own.back()), cache_.data(page.id), cache_.page_bytes(page.id));
  }
  for (size_t i = 0; i < shared.size(); ++i) {
    put(shared[i].group, shared[i].number, own[i]);
    cache_.release(shared[i].id);
  }
  promised_bytes_ += n_bytes;
  n_shared_pages_ = n_published_ = 0;
  if (node_ != nullptr) tree_->leave(std::exchange(node_, nullptr));
  return Status::ok();
}

Status KvSequence::drop_pages(int first_page, int n_pages) {
  EDGE_ASSIGN_OR_RETURN(const std::vector<KvPage> pages, plan_.drop(first_page, n_pages));
  let_go(pages);
  for (size_t group = 0; group < plan_.n_groups(); ++group) {
    std::vector<std::byte*>& data = page_data_[group];
    data.erase(data.begin() + first_page, data.begin() + first_page + n_pages);
    // Of a table that began inside the gap: the pages kept before it, which it let go.
    for (int page = 0; page < plan_.first_page(group); ++page) {
      data[static_cast<size_t>(page)] = nullptr;
    }
    tables_[group].n_pages = plan_.n_pages(group);
  }
  stamp_anew();
  return Status::ok();
}

uint64_t KvSequence::give_back(uint64_t n_bytes, int n_least) {
  const uint64_t before = cache_.figures().held_bytes;
  const auto given = [&] {
    const uint64_t now = cache_.figures().held_bytes;
    return now < before ? before - now : 0;
  };
  if (tree_ != nullptr) tree_->trim(n_bytes);
  while (given() < n_bytes && n_tokens() > n_least) {
    const int last_page = n_pages_for(n_tokens()) - 1;
    int n_kept = std::max(n_least, last_page * kPageTokens);
    if (!plan_.is_whole_at(n_kept)) {
      if (n_least > 0) break;
      n_kept = 0;
    }
    rewind(n_kept);
    if (tree_ != nullptr) tree_->trim(UINT64_MAX);  // nothing else was left idle
  }
  return given();
}

}  // namespace edge
