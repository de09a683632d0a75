#include "runtime/prefix_tree.h"

#include <algorithm>

namespace edge {
namespace {

constexpr PageId kNoPage = UINT64_MAX;

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

  bool is_whole() const { return ids.size() == kPageTokens; }
  bool is_end() const { return children.empty() && n_pins == 0; }
};

PrefixTree::PrefixTree(KvCache& cache, uint64_t idle_budget_bytes)
    : cache_(cache), idle_budget_bytes_(idle_budget_bytes) {}

PrefixTree::~PrefixTree() {
  while (let_go_oldest()) {
  }
}

PrefixNode* PrefixTree::enter(std::string_view key) {
  const std::lock_guard lock(mutex_);
  auto found = roots_.find(key);
  if (found == roots_.end()) {
    found = roots_.emplace(std::string(key), std::make_unique<PrefixNode>()).first;
    found->second->key = found->first;
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
  file(node);
}

PrefixNode& PrefixTree::add(PrefixNode& parent, std::span<const int32_t> ids,
                            std::span<const PageId> pages) {
  auto node = std::make_unique<PrefixNode>();
  node->parent = &parent;
  node->depth = parent.depth + 1;
  node->ids.assign(ids.begin(), ids.end());
  node->pages.assign(pages.begin(), pages.end());
  for (const PageId page : pages) cache_.keep(page);
  parent.children.push_back(std::move(node));
  file(parent);
  ++figures_.n_nodes;
  return *parent.children.back();
}

void PrefixTree::remove(PrefixNode& node) {
  unfile(node);
  for (const PageId page : node.pages) {
    if (page != kNoPage) cache_.drop(page);
  }
  --figures_.n_nodes;
  figures_.n_evicted_tokens += static_cast<int64_t>(node.ids.size());
  PrefixNode& parent = *node.parent;
  std::erase_if(parent.children, [&](const auto& child) { return child.get() == &node; });
  file(parent);
}

// Ends of texts that `ids`, which are there now, begin with.
void PrefixTree::drop_superseded(PrefixNode& parent, std::span<const int32_t> ids) {
  std::vector<PrefixNode*> old;
  for (const auto& child : parent.children) {
    const bool is_shorter = !child->is_whole() && child->ids.size() < ids.size();
    if (is_shorter && child->is_end() && n_same(child->ids, ids) == child->ids.size()) {
      old.push_back(child.get());
    }
  }
  for (PrefixNode* node : old) remove(*node);
}

void PrefixTree::insert(PrefixNode*& node, std::span<const int32_t> ids, std::span<PageId> pages) {
  const std::lock_guard lock(mutex_);
  PrefixNode* next = nullptr;
  for (const auto& child : node->children) {
    if (child->is_whole() && n_same(child->ids, ids) == ids.size()) next = child.get();
  }
  if (next == nullptr) {
    next = &add(*node, ids, pages);
    drop_superseded(*node, ids);
  } else {
    for (size_t group = 0; group < pages.size(); ++group) {
      if (next->pages[group] == pages[group]) continue;
      if (next->pages[group] == kNoPage) {
        next->pages[group] = pages[group];
        cache_.keep(pages[group]);
        continue;
      }
      cache_.retain(next->pages[group]);
      cache_.release(pages[group]);
      pages[group] = next->pages[group];
    }
  }
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
    if (n_same(child->ids, ids) < ids.size()) continue;
    return touch(*child);
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
    const bool is_there =
        std::find(child->pages.begin(), child->pages.end(), kNoPage) == child->pages.end();
    if (n <= match.n_tail_tokens || !is_there) continue;
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

uint64_t PrefixTree::drop_windows(PrefixNode& node) {
  uint64_t n_bytes = 0;
  for (size_t group = 0; group < node.pages.size(); ++group) {
    const PageId page = node.pages[group];
    if (cache_.groups()[group].window == 0 || page == kNoPage || !cache_.is_idle(page)) continue;
    n_bytes += cache_.page_bytes(page);
    cache_.drop(page);
    node.pages[group] = kNoPage;
  }
  if (n_bytes > 0) file(node);
  return n_bytes;
}

bool PrefixTree::let_go_oldest() {
  for (const Age& age : inside_) {
    if (!ends_.empty() && age > *ends_.begin()) break;
    if (drop_windows(*age.second) > 0) return true;
  }
  if (!ends_.empty()) {
    remove(*ends_.begin()->second);
    return true;
  }
  for (const Age& age : inside_) {
    if (drop_windows(*age.second) > 0) return true;
  }
  return false;
}

bool PrefixTree::evict_one() {
  const std::lock_guard lock(mutex_);
  return let_go_oldest();
}

void PrefixTree::enforce() {
  const std::lock_guard lock(mutex_);
  while (cache_.idle_bytes() > idle_budget_bytes_ && let_go_oldest()) {
  }
}

uint64_t PrefixTree::trim(uint64_t n_bytes) {
  const std::lock_guard lock(mutex_);
  const uint64_t before = cache_.idle_bytes();
  uint64_t after = before;
  while (before - after < n_bytes && let_go_oldest()) after = cache_.idle_bytes();
  return before - after;
}

PrefixFigures PrefixTree::figures() const {
  const std::lock_guard lock(mutex_);
  return figures_;
}

}  // namespace edge
