#include "runtime/head_drafter.h"

#include <algorithm>
#include <utility>

#include "base/exact_math.h"
#include "base/os.h"

namespace edge {

namespace {

constexpr float kNegligible = 16.0F;  // below the largest logit: e^-16 of its probability
constexpr double kMeanOf = 32;        // proposals that their time is a mean of

}  // namespace

HeadDrafter::HeadDrafter(std::unique_ptr<DraftRows> rows, std::span<const int32_t> ids,
                         const Acceptance& acceptance, size_t n_head_bytes)
    : rows_(std::move(rows)),
      ids_(ids),
      acceptance_(acceptance),
      n_head_bytes_(n_head_bytes),
      logits_(ids.size()) {}

void HeadDrafter::observe(const DraftObservation& observation) {
  const auto d_model = static_cast<size_t>(rows_->d_model());
  const size_t n = observation.n_new;
  n_tokens_ = observation.tokens.size();
  if (n == 0 || has_failed_) return;
  has_root_ = false;
  // Without their hidden states the head has no rows of these, and begins again behind them.
  if (observation.hidden.size() != n * d_model) return forget(n_tokens_);
  const std::span<const int32_t> tokens = observation.tokens.last(n);
  unread_.insert(unread_.end(), tokens.begin(), tokens.end());
  hidden_.insert(hidden_.end(), observation.hidden.begin(), observation.hidden.end());
  const size_t n_room = std::min(kMostUnread, static_cast<size_t>(rows_->n_ctx() - kMostPasses));
  const auto n_rows = static_cast<size_t>(rows_->n_rows());
  if (unread_.size() > n_room ||
      n_rows + unread_.size() + kMostPasses > static_cast<size_t>(rows_->n_ctx())) {
    const size_t n_kept = std::min(unread_.size(), n_room);
    unread_.erase(unread_.begin(), unread_.end() - static_cast<ptrdiff_t>(n_kept));
    hidden_.erase(hidden_.begin(), hidden_.end() - static_cast<ptrdiff_t>(n_kept * d_model));
    rows_->rewind(0);
    first_ = n_tokens_ - n_kept;
  }
}

void HeadDrafter::forget(size_t n_tokens) {
  unread_.clear();
  hidden_.clear();
  rows_->rewind(0);
  first_ = n_tokens_ = n_tokens;
  has_root_ = false;
}

void HeadDrafter::rewind(std::span<const int32_t> tokens) {
  const size_t n = tokens.size();
  if (n >= n_tokens_) return;
  if (n <= first_) return forget(n);
  const auto n_rows = static_cast<size_t>(rows_->n_rows());
  const size_t n_kept = n - first_;  // of rows and of what is unread
  if (n_kept <= n_rows) rows_->rewind(static_cast<int>(n_kept));
  const size_t n_unread = n_kept > n_rows ? n_kept - n_rows : 0;
  unread_.resize(n_unread);
  hidden_.resize(n_unread * static_cast<size_t>(rows_->d_model()));
  n_tokens_ = n;
  has_root_ = false;
}

size_t HeadDrafter::memory_bytes() const {
  return n_head_bytes_ + unread_.capacity() * sizeof(int32_t) +
         (hidden_.capacity() + states_.capacity() + logits_.capacity() + root_logits_.capacity()) *
             sizeof(float);
}

void HeadDrafter::propose(const DraftContext& context, Candidates& out) {
  if (has_failed_ || context.tokens.size() != n_tokens_) return;
  const int64_t start_ns = monotonic_ns();
  if (!has_root_ && !read_committed()) return;
  const int n_committed = rows_->n_rows();
  nodes_.clear();
  in_rows_.clear();
  states_.resize(static_cast<size_t>(rows_->d_model()));
  logits_ = root_logits_;
  branch(-1, out);
  for (int n_passes = 1; n_passes < kMostPasses; ++n_passes) {
    const int leaf = likeliest_leaf(context.max_depth, out);
    if (leaf < 0) break;
    std::vector<int> path;
    for (int node = leaf; node >= 0; node = nodes_[static_cast<size_t>(node)].parent) {
      path.insert(path.begin(), node);
    }
    nodes_[static_cast<size_t>(leaf)].is_expanded = true;
    if (!pass(path)) break;
    branch(leaf, out);
  }
  rows_->rewind(n_committed);
  const double ms = static_cast<double>(monotonic_ns() - start_ns) * 1e-6;
  propose_ms_ = propose_ms_ == 0 ? ms : propose_ms_ + (ms - propose_ms_) / kMeanOf;
}

bool HeadDrafter::read_committed() {
  if (unread_.empty()) return false;
  states_.resize(static_cast<size_t>(rows_->d_model()));
  root_logits_.resize(ids_.size());
  has_failed_ = !rows_->add(unread_, hidden_, root_logits_, states_).is_ok();
  unread_.clear();
  hidden_.clear();
  has_root_ = !has_failed_;
  return has_root_;
}

bool HeadDrafter::pass(std::span<const int> path) {
  const auto d_model = static_cast<size_t>(rows_->d_model());
  const auto there = std::mismatch(in_rows_.begin(), in_rows_.end(), path.begin(), path.end());
  const auto n_there = static_cast<size_t>(there.first - in_rows_.begin());
  rows_->rewind(rows_->n_rows() - static_cast<int>(in_rows_.size() - n_there));
  in_rows_.assign(path.begin(), path.end());
  std::vector<int32_t> tokens;
  std::vector<float> hidden;
  for (const int at : path.subspan(n_there)) {
    const Node& node = nodes_[static_cast<size_t>(at)];
    tokens.push_back(node.id);
    const float* state = states_.data() + static_cast<size_t>(node.state) * d_model;
    hidden.insert(hidden.end(), state, state + d_model);
  }
  states_.resize(states_.size() + d_model);
  has_failed_ = !rows_->add(tokens, hidden, logits_, std::span(states_).last(d_model)).is_ok();
  return !has_failed_;
}

void HeadDrafter::branch(int parent, Candidates& out) {
  branches_of(logits_);
  const auto state = static_cast<int>(states_.size() / static_cast<size_t>(rows_->d_model())) - 1;
  const float before = parent < 0 ? 1.0F : nodes_[static_cast<size_t>(parent)].path;
  const int place = parent < 0 ? -1 : nodes_[static_cast<size_t>(parent)].place;
  for (const Branch& one : branches_) {
    if (one.probability < kLeastBranch) continue;
    const int bucket =
        std::min(kDraftBuckets - 1, static_cast<int>(one.probability * kDraftBuckets));
    const float probability =
        acceptance_.probability(DrafterKind::kHead, bucket, double{one.probability});
    const int32_t id = ids_[one.at];
    const int added = out.add({.id = id,
                               .parent = place,
                               .probability = probability,
                               .drafter = DrafterKind::kHead,
                               .bucket = static_cast<uint8_t>(bucket)});
    if (added < 0) return;
    nodes_.push_back({id, parent, added, before * probability, state});
  }
}

int HeadDrafter::likeliest_leaf(int max_depth, const Candidates& out) const {
  int best = -1;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    if (node.is_expanded || node.path < kLeastPath || out.depth(node.place) >= max_depth) continue;
    if (best < 0 || node.path > nodes_[static_cast<size_t>(best)].path) best = static_cast<int>(i);
  }
  return best;
}

// The largest logits, of equal ones those of lower ids, and what they make of the whole.
void HeadDrafter::branches_of(std::span<const float> logits) {
  branches_.clear();
  for (size_t at = 0; at < logits.size(); ++at) {
    if (branches_.size() == kBranches && !(logits[at] > branches_.back().logit)) continue;
    if (branches_.size() == kBranches) branches_.pop_back();
    const auto behind = std::find_if(branches_.begin(), branches_.end(),
                                     [&](const Branch& other) { return logits[at] > other.logit; });
    branches_.insert(behind, {at, logits[at], 0});
  }
  const float most = branches_.front().logit;
  double sum = 0;
  for (const float logit : logits) {
    if (most - logit < kNegligible) sum += exp_nonpositive(double{logit} - double{most});
  }
  for (Branch& one : branches_) {
    const double below = std::max(double{one.logit} - double{most}, -700.0);
    one.probability = static_cast<float>(exp_nonpositive(below) / sum);
  }
}

}  // namespace edge
