#include "runtime/prefix_tree.h"

#include <algorithm>

namespace edge {
namespace {

size_t n_same(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t n = std::min(a.size(), b.size());
  size_t i = 0;
  while (i < n && a[i] == b[i]) ++i;
  return i;
}

}  // namespace

struct PrefixNode {
  PrefixNode* parent = nullptr;  // null: where texts begin
  std::string_view key;          // there, else empty
  int depth = 0;                 // pages up to this one
  std::vector<int32_t> ids;
  std::vector<PageId> pages;  // by group; kNoPage: let go
  std::vector<std::unique_ptr<PrefixNode>> children;
  int n_pins = 0;  // sequences that stand here
  uint64_t last_use = 0;
  KvDisk::Name disk_name{};       // where there is a disk
  bool is_being_written = false;  // nothing of it goes meanwhile
  bool was_written = false;       // since it was used last

  bool is_whole() const { return ids.size() == kPageTokens; }
  bool is_complete() const { return std::ranges::find(pages, kNoPage) == pages.end(); }
  bool is_end() const { return children.empty() && n_pins == 0; }
};

PrefixTree::PrefixTree(KvCache& cache, uint64_t idle_budget_bytes, KvDisk* disk)
    : cache_(cache), idle_budget_bytes_(idle_budget_bytes), disk_(disk) {}

PrefixTree::~PrefixTree() {
  Lock lock(mutex_);
  while (let_go_oldest(lock)) {
  }
}

PrefixNode* PrefixTree::enter(std::string_view key) {
  const std::lock_guard lock(mutex_);
  auto found = roots_.find(key);
  if (found == roots_.end()) {
    found = roots_.emplace(std::string(key), std::make_unique<PrefixNode>()).first;
    found->second->key = found->first;
    if (disk_ != nullptr) found->second->disk_name = disk_->beginning(key);
  }
  ++found->second->n_pins;
  return found->second.get();
}

void PrefixTree::leave(PrefixNode* node) {
  {
    const std::lock_guard lock(mutex_);
    --node->n_pins;
    file(*node);
  }
  enforce();
}

void PrefixTree::join(PrefixNode* node) {
  const std::lock_guard lock(mutex_);
  ++node->n_pins;
}

void PrefixTree::up(PrefixNode*& node) {
  const std::lock_guard lock(mutex_);
  --node->n_pins;
  ++node->parent->n_pins;
  file(*node->parent);
  file(*node);
  node = node->parent;
}

bool PrefixTree::has_windows(const PrefixNode& node) const {
  for (size_t group = 0; group < node.pages.size(); ++group) {
    if (cache_.groups()[group].window > 0 && node.pages[group] != kNoPage) return true;
  }
  return false;
}

void PrefixTree::unfile(PrefixNode& node) {
  ends_.erase({node.last_use, &node});
  inside_.erase({node.last_use, &node});
}

// Puts the node where eviction finds it, if anywhere. A beginning that nobody needs goes.
void PrefixTree::file(PrefixNode& node) {
  unfile(node);
  if (node.is_being_written) return;
  if (node.parent == nullptr) {
    if (node.is_end()) roots_.erase(roots_.find(node.key));
    return;
  }
  if (node.is_end()) {
    ends_.emplace(node.last_use, &node);
  } else if (has_windows(node)) {
    inside_.emplace(node.last_use, &node);
  }
}

void PrefixTree::touch(PrefixNode& node) {
  unfile(node);
  node.last_use = ++clock_;
  node.was_written = false;
  file(node);
}

PrefixNode& PrefixTree::add(PrefixNode& parent, std::span<const int32_t> ids,
                            std::span<const PageId> pages) {
  auto node = std::make_unique<PrefixNode>();
  node->parent = &parent;
  node->depth = parent.depth + 1;
  node->ids.assign(ids.begin(), ids.end());
  node->pages.assign(pages.begin(), pages.end());
  for (const PageId page : pages) {
    if (page != kNoPage) cache_.keep(page);
  }
  if (disk_ != nullptr) node->disk_name = KvDisk::after(parent.disk_name, ids);
  parent.children.push_back(std::move(node));
  file(parent);
  ++figures_.n_nodes;
  return *parent.children.back();
}

uint64_t PrefixTree::remove(PrefixNode& node) {
  unfile(node);
  uint64_t n_bytes = 0;
  for (const PageId page : node.pages) {
    if (page == kNoPage) continue;
    if (cache_.is_idle(page)) n_bytes += cache_.page_bytes(page);
    cache_.drop(page);
  }
  --figures_.n_nodes;
  figures_.n_evicted_tokens += static_cast<int64_t>(node.ids.size());
  PrefixNode& parent = *node.parent;
  std::erase_if(parent.children, [&](const auto& child) { return child.get() == &node; });
  file(parent);
  return n_bytes;
}

// Ends of texts that `ids`, which are there now, begin with. Whether there were any.
bool PrefixTree::drop_superseded(PrefixNode& parent, std::span<const int32_t> ids) {
  std::vector<PrefixNode*> old;
  for (const auto& child : parent.children) {
    const bool is_shorter = !child->is_whole() && child->ids.size() < ids.size();
    if (is_shorter && child->is_end() && n_same(child->ids, ids) == child->ids.size()) {
      old.push_back(child.get());
    }
  }
  for (PrefixNode* node : old) remove(*node);
  return !old.empty();
}

// Those that the node does not have.
void PrefixTree::adopt_states(PrefixNode& node, std::span<const PageId> pages) {
  for (size_t group = 0; group < pages.size(); ++group) {
    const bool is_wanted = cache_.groups()[group].is_state && node.pages[group] == kNoPage;
    if (!is_wanted || pages[group] == kNoPage) continue;
    node.pages[group] = pages[group];
    cache_.keep(pages[group]);
  }
}

void PrefixTree::keep_states(PrefixNode& node, std::span<const PageId> pages) {
  const std::lock_guard lock(mutex_);
  adopt_states(node, pages);
  file(node);
}

void PrefixTree::insert(PrefixNode*& node, std::span<const int32_t> ids, std::span<PageId> pages,
                        bool ends_here) {
  const std::lock_guard lock(mutex_);
  PrefixNode* next = nullptr;
  for (const auto& child : node->children) {
    if (child->is_whole() && n_same(child->ids, ids) == ids.size()) next = child.get();
  }
  if (next == nullptr) {
    std::vector<PageId> own(pages.begin(), pages.end());
    for (size_t group = 0; group < own.size(); ++group) {
      if (cache_.groups()[group].is_state) own[group] = kNoPage;
    }
    next = &add(*node, ids, own);
  } else {
    for (size_t group = 0; group < pages.size(); ++group) {
      if (next->pages[group] == pages[group] || pages[group] == kNoPage) continue;
      if (next->pages[group] == kNoPage) {
        if (cache_.groups()[group].is_state) continue;
        next->pages[group] = pages[group];
        cache_.keep(pages[group]);
        continue;
      }
      cache_.retain(next->pages[group]);
      cache_.release(pages[group]);
      pages[group] = next->pages[group];
    }
  }
  // Where a text ended, others may go on. The page holds the states inside it, too.
  ends_here |= drop_superseded(*node, ids) || is_checkpoint(node->depth);
  if (ends_here) adopt_states(*next, pages);
  ++next->n_pins;
  --node->n_pins;
  touch(*next);
  file(*node);
  node = next;
}

void PrefixTree::insert_tail(PrefixNode* node, std::span<const int32_t> ids,
                             std::span<const PageId> pages) {
  const std::lock_guard lock(mutex_);
  for (const auto& child : node->children) {
    if (n_same(child->ids, ids) == ids.size() && child->is_complete()) return touch(*child);
  }
  touch(add(*node, ids, pages));
  drop_superseded(*node, ids);
}

int PrefixTree::first_held(const PrefixNode& node, size_t group, int n_tokens) const {
  const int window = cache_.groups()[group].window;
  const int n_most = std::max(0, n_tokens - kKeptTokens);  // as if rewound so far
  const int first_wanted = first_seen(window, n_most) / kPageTokens;
  int first = node.depth;
  for (const PrefixNode* at = &node; at->parent != nullptr && first > first_wanted;
       at = at->parent) {
    if (at->pages[group] == kNoPage) break;
    first = at->depth - 1;
  }
  return first <= first_seen(window, n_tokens) / kPageTokens ? first : -1;
}

// Pages of the text that ends at `node`, from number n_before on, to `match`.
void PrefixTree::give(PrefixNode& node, int n_before, PrefixMatch& match) {
  const int n_tokens = node.depth * kPageTokens + match.n_tail_tokens;
  match.n_pages = node.depth - n_before;
  match.groups.resize(cache_.groups().size());
  for (size_t group = 0; group < match.groups.size(); ++group) {
    KvPages& out = match.groups[group];
    out.first_page = std::max(n_before, first_held(node, group, n_tokens));
    out.pages.resize(static_cast<size_t>(node.depth - out.first_page));
    const PrefixNode* at = &node;
    for (size_t i = out.pages.size(); i > 0; --i, at = at->parent) {
      out.pages[i - 1] = at->pages[group];
      cache_.retain(at->pages[group]);
    }
  }
}

PrefixMatch PrefixTree::match(PrefixNode*& node, std::span<const int32_t> ids) {
  const std::lock_guard lock(mutex_);
  PrefixNode* const from = node;
  PrefixNode* at = from;
  for (bool is_known = true; is_known && ids.size() >= kPageTokens;) {
    is_known = false;
    for (const auto& child : at->children) {
      if (!child->is_whole() || n_same(child->ids, ids) < kPageTokens) continue;
      at = child.get();
      ids = ids.subspan(kPageTokens);
      is_known = true;
      break;
    }
  }
  PrefixNode* tail = nullptr;
  PrefixMatch match;
  for (const auto& child : at->children) {
    const auto n = static_cast<int>(n_same(child->ids, ids));
    if (n <= match.n_tail_tokens || !child->is_complete()) continue;
    match.n_tail_tokens = n;
    tail = child.get();
  }
  const auto can_end = [&](const PrefixNode& end) {
    for (size_t group = 0; group < cache_.groups().size(); ++group) {
      const int n_tokens = end.depth * kPageTokens + match.n_tail_tokens;
      if (first_held(end, group, n_tokens) < 0) return false;
    }
    return true;
  };
  if (tail != nullptr && !can_end(*at)) match.n_tail_tokens = 0;
  while (at != from && !can_end(*at)) at = at->parent;
  if (match.n_tail_tokens > 0) {
    touch(*tail);
    match.tail = tail->pages;
    for (const PageId page : match.tail) cache_.retain(page);
  }
  give(*at, from->depth, match);
  for (PrefixNode* used = at; used != from; used = used->parent) touch(*used);
  ++at->n_pins;
  --from->n_pins;
  file(*at);
  file(*from);
  node = at;
  figures_.n_matched_tokens += match.n_pages * kPageTokens + match.n_tail_tokens;
  return match;
}

KvDisk::Name PrefixTree::disk_name(const PrefixNode& node) const {
  const std::lock_guard lock(mutex_);
  return node.disk_name;
}

// Whether it is a page of a window and the tree alone owns it.
bool PrefixTree::can_drop(const PrefixNode& node, size_t group) const {
  const PageId page = node.pages[group];
  return cache_.groups()[group].window > 0 && page != kNoPage && cache_.is_idle(page);
}

uint64_t PrefixTree::drop_windows(PrefixNode& node) {
  uint64_t n_bytes = 0;
  for (size_t group = 0; group < node.pages.size(); ++group) {
    if (!can_drop(node, group)) continue;
    n_bytes += cache_.page_bytes(node.pages[group]);
    cache_.drop(node.pages[group]);
    node.pages[group] = kNoPage;
  }
  file(node);
  return n_bytes;
}

// The next to go, all of it at the end of a text and its windows inside; null if there is none.
PrefixNode* PrefixTree::oldest() const {
  PrefixNode* const end = ends_.empty() ? nullptr : ends_.begin()->second;
  for (const auto& [last_use, node] : inside_) {
    if (end != nullptr && Age(last_use, node) > *ends_.begin()) break;
    for (size_t group = 0; group < node->pages.size(); ++group) {
      if (can_drop(*node, group)) return node;
    }
  }
  return end;
}

// Whether it has all that the disk keeps of it.
bool PrefixTree::is_storable(const PrefixNode& node) const {
  for (size_t group = 0; group < node.pages.size(); ++group) {
    const bool is_kept = !cache_.groups()[group].is_state || is_checkpoint(node.depth - 1);
    if (is_kept && node.pages[group] == kNoPage) return false;
  }
  return node.is_whole();
}

// Before anything of it goes. Other threads may use it and what follows it while it is written.
bool PrefixTree::write_down(PrefixNode& node, Lock& lock) {
  if (disk_ == nullptr || node.was_written || !is_storable(node)) return false;
  std::vector<std::span<const std::byte>> pages;
  for (size_t group = 0; group < node.pages.size(); ++group) {
    if (cache_.groups()[group].is_state && !is_checkpoint(node.depth - 1)) continue;
    const PageId page = node.pages[group];
    pages.emplace_back(cache_.data(page), cache_.page_bytes(page));
  }
  node.was_written = node.is_being_written = true;
  unfile(node);
  lock.unlock();
  disk_->write(node.disk_name, node.ids, pages);
  lock.lock();
  node.is_being_written = false;
  file(node);
  return true;
}

std::optional<uint64_t> PrefixTree::let_go_oldest(Lock& lock) {
  PrefixNode* const node = oldest();
  if (node == nullptr) return std::nullopt;
  if (write_down(*node, lock)) return 0;
  return node->is_end() ? remove(*node) : drop_windows(*node);
}

bool PrefixTree::evict_one() {
  Lock lock(mutex_);
  return let_go_oldest(lock).has_value();
}

void PrefixTree::enforce() {
  Lock lock(mutex_);
  while (cache_.idle_bytes() > idle_budget_bytes_ && let_go_oldest(lock)) {
  }
}

uint64_t PrefixTree::trim(uint64_t n_bytes) {
  Lock lock(mutex_);
  uint64_t n_gone = 0;
  while (n_gone < n_bytes) {
    const std::optional<uint64_t> n = let_go_oldest(lock);
    if (!n) break;
    n_gone += *n;
  }
  return n_gone;
}

PrefixFigures PrefixTree::figures() const {
  const std::lock_guard lock(mutex_);
  return figures_;
}

}  // namespace edge
