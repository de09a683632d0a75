#include "runtime/row_drafter.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/exact_math.h"
#include "base/os.h"
#include "runtime/sampler.h"

namespace edge {

namespace {

constexpr float kNegligible = 16.0F;  // below the largest logit: e^-16 of its probability
constexpr double kMeanOf = 32;        // passes

double ms_since(int64_t start_ns) { return static_cast<double>(monotonic_ns() - start_ns) * 1e-6; }

void learn(double& mean, double value) {
  mean = mean == 0 ? value : mean + (value - mean) / kMeanOf;
}

}  // namespace

RowDrafter::RowDrafter(const Growth& growth, std::unique_ptr<DraftRows> rows,
                       const Acceptance& acceptance, size_t n_bytes)
    : growth_(growth), rows_(std::move(rows)), acceptance_(acceptance), n_bytes_(n_bytes) {}

size_t RowDrafter::memory_bytes() const {
  return n_bytes_ +
         (states_.capacity() + logits_.capacity() + root_logits_.capacity()) * sizeof(float);
}

void RowDrafter::propose(const DraftContext& context, Candidates& out) {
  once_ms_ = 0;
  if (has_failed_) return;
  int64_t start_ns = monotonic_ns();
  const int n_rows_before = rows_->n_rows();
  if (!has_root_ && !read_committed(context.tokens)) return;
  if (rows_->n_rows() > n_rows_before + TokenTree::kMaxNodes + 1) {
    once_ms_ = ms_since(start_ns);
    start_ns = monotonic_ns();
  }
  const int n_committed = rows_->n_rows();
  grow(context, out);
  rows_->rewind(n_committed);
  learn(propose_ms_, ms_since(start_ns));
}

void RowDrafter::grow(const DraftContext& context, Candidates& out) {
  nodes_.clear();
  in_rows_.clear();
  n_states_ = 1;
  states_.resize(static_cast<size_t>(rows_->width()));
  logits_ = root_logits_;
  branch(-1, context, out);
  for (int n_passes = 1; n_passes < growth_.most_passes; ++n_passes) {
    const int leaf = likeliest_leaf(context, out);
    if (leaf < 0) break;
    std::vector<int> path;
    for (int node = leaf; node >= 0; node = nodes_[static_cast<size_t>(node)].parent) {
      path.insert(path.begin(), node);
    }
    nodes_[static_cast<size_t>(leaf)].is_expanded = true;
    const int64_t start_ns = monotonic_ns();
    if (!pass(path)) break;
    learn(best_of_pass_, double{branch(leaf, context, out)});
    learn(pass_ms_, ms_since(start_ns));
  }
}

bool RowDrafter::read(std::span<const int32_t> tokens, std::span<const float> hidden) {
  if (tokens.empty()) return false;
  states_.resize(static_cast<size_t>(rows_->width()));
  root_logits_.resize(static_cast<size_t>(rows_->n_vocab()));
  has_failed_ = !rows_->add(tokens, hidden, root_logits_, states_).is_ok();
  has_root_ = !has_failed_;
  return has_root_;
}

bool RowDrafter::pass(std::span<const int> path) {
  const auto width = static_cast<size_t>(rows_->width());
  const auto there = std::mismatch(in_rows_.begin(), in_rows_.end(), path.begin(), path.end());
  const auto n_there = static_cast<size_t>(there.first - in_rows_.begin());
  rows_->rewind(rows_->n_rows() - static_cast<int>(in_rows_.size() - n_there));
  in_rows_.assign(path.begin(), path.end());
  std::vector<int32_t> tokens;
  std::vector<float> hidden;
  for (const int at : path.subspan(n_there)) {
    const Node& node = nodes_[static_cast<size_t>(at)];
    tokens.push_back(node.id);
    const float* state = states_.data() + static_cast<size_t>(node.state) * width;
    hidden.insert(hidden.end(), state, state + width);
  }
  states_.resize(states_.size() + width);
  ++n_states_;
  has_failed_ = !rows_->add(tokens, hidden, logits_, std::span(states_).last(width)).is_ok();
  return !has_failed_;
}

float RowDrafter::branch(int parent, const DraftContext& context, Candidates& out) {
  float best = 0.0F;
  const float before = parent < 0 ? 1.0F : nodes_[static_cast<size_t>(parent)].path;
  const int place = parent < 0 ? -1 : nodes_[static_cast<size_t>(parent)].place;
  const std::span<const float> logits = std::span(logits_).first(growth_.n_logits);
  branches_.clear();
  if (context.draws != nullptr) {
    find_drawn(logits, *context.draws, out.depth(place));
  } else {
    find_likeliest(logits);
  }
  for (const Branch& one : branches_) {
    if (one.probability < kLeastBranch) continue;
    const int bucket = one.bucket();
    const float probability =
        acceptance_.probability(growth_.kind, bucket, double{one.probability});
    const int added = out.add({.id = one.id,
                               .parent = place,
                               .probability = probability,
                               .drafter = growth_.kind,
                               .bucket = static_cast<uint8_t>(bucket)});
    if (added < 0) break;
    best = std::max(best, probability);
    nodes_.push_back({one.id, parent, added, before * probability, n_states_ - 1});
  }
  return best;
}

// How far a guess can be trusted is counted for each share of 1, of those that will be drawn and
// of others.
int RowDrafter::Branch::bucket() const {
  constexpr int kShares = kDraftBuckets / 2;
  const int share = std::min(kShares - 1, static_cast<int>(probability * kShares));
  return is_drawn ? kShares + share : share;
}

// That a pass is worth: if all before is right, it brings its best guess as often as that is right,
// and has to pay for the row that this takes, too.
int RowDrafter::likeliest_leaf(const DraftContext& context, const Candidates& out) const {
  const double price = context.tokens_a_ms * pass_ms_ + context.tokens_a_row;
  const double is_right = best_of_pass_ > 0 ? best_of_pass_ : 1.0;
  const float least = std::max(growth_.least_path, static_cast<float>(price / is_right));
  int best = -1;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    if (node.is_expanded || node.path < least) continue;
    if (out.depth(node.place) >= context.max_depth) continue;
    if (best < 0 || node.path > nodes_[static_cast<size_t>(best)].path) best = static_cast<int>(i);
  }
  return best;
}

void RowDrafter::find_drawn(std::span<const float> logits, const ComingDraws& draws, int depth) {
  const uint64_t step = draws.step + static_cast<uint64_t>(depth);
  SamplerParams params = *draws.params;
  params.temperature *= growth_.temperature;
  for (const TokenShare& one : guess(logits, params, step, growth_.ids, kBranches)) {
    branches_.push_back({one.id, static_cast<float>(one.probability), true});
  }
}

// The largest logits, of equal ones those of lower ids, and what they make of the whole.
void RowDrafter::find_likeliest(std::span<const float> logits) {
  struct Top {
    size_t at;
    float logit;
  };
  std::array<Top, kBranches> best;
  size_t n = 0;
  for (size_t at = 0; at < logits.size(); ++at) {
    if (n == kBranches && !(logits[at] > best[n - 1].logit)) continue;
    size_t place = n < kBranches ? n++ : n - 1;
    for (; place > 0 && logits[at] > best[place - 1].logit; --place) best[place] = best[place - 1];
    best[place] = {at, logits[at]};
  }
  if (n == 0) return;
  const float most = best[0].logit;
  double sum = 0;
  for (const float logit : logits) {
    if (most - logit < kNegligible) sum += exp_nonpositive(double{logit} - double{most});
  }
  for (const Top& one : std::span(best).first(n)) {
    const double below = std::max(double{one.logit} - double{most}, -700.0);
    const int32_t id = growth_.ids.empty() ? static_cast<int32_t>(one.at) : growth_.ids[one.at];
    branches_.push_back({id, static_cast<float>(exp_nonpositive(below) / sum)});
  }
}

}  // namespace edge
