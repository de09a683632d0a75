// What a session does with drafts. The KV's plan, its pages and what others share of them know only
// of tokens that were appended and processed; rows of drafts stand in slots behind.
#include <algorithm>

#include "base/os.h"
#include "runtime/session.h"
#include "runtime/top_ids.h"

namespace edge {

// Before the first step of a run: what is done already, by drafts or by others.
Status Session::begin_run(const Run& run) {
  if (run.logits != nullptr || run.hidden != nullptr) drop_drafts();
  EDGE_RETURN_IF_ERROR(take_drafted());
  if (n_pending() == 0) return Status::ok();
  drop_drafts();
  adopt_known(run);
  return Status::ok();
}

Status Session::take_drafted() {
  while (n_pending() > 0) {
    const int node = ahead_.find(tokens_[static_cast<size_t>(n_done_)]);
    if (node < 0) break;
    const int slot = kv_->n_tokens();
    if (ahead_.slot(node) != slot) {
      EDGE_RETURN_IF_ERROR(model().move_slot(kv_->view(), ahead_.slot(node), slot));
    }
    EDGE_RETURN_IF_ERROR(kv_->commit(1));
    count_tokens(1);
    ++n_done_;
    kv_->publish(tokens_);
    logits_at_ = n_done_;
    logits_row_ = 1 + node;
    ++drafted_step_.n_tokens;
    ++stats_.drafts[static_cast<size_t>(ahead_.node(node).drafter)].n_accepted;
    ahead_.advance(node);
  }
  return Status::ok();
}

// For the step to come, if it is one for a single token.
void Session::draft() {
  ahead_.clear();
  if (drafts_ == nullptr || !is_decoding_) return;
  const int64_t start_ns = monotonic_ns();
  tell_source();
  if (const int n_most = most_drafts(); n_most > 0) {
    const TokenTree& tree = drafts_->propose({.tokens = tokens_, .max_depth = n_most}, n_most);
    ahead_.plan(tree, meets_other_format(tree.size()));
  }
  drafting_ms_ = static_cast<double>(monotonic_ns() - start_ns) * 1e-6;
}

int Session::most_drafts() const {
  if (n_pending() != 1 || n_recompute() > 0) return 0;
  const int n_slots = n_ctx() - kv_->n_tokens() - 1;
  const int n_positions = model().max_positions() - kept_.position_of(n_done_) - 1;
  return std::min({TokenTree::kMaxNodes, n_slots, n_positions, model().max_rows() - 1});
}

// Whether so many drafts would stand partly in the first page and partly behind, where a token has
// other bytes: none can be moved between them.
bool Session::meets_other_format(int n_drafts) const {
  const int slot = kv_->n_tokens() + 1;
  if (slot >= kPageTokens || slot + n_drafts <= kPageTokens) return false;
  return std::ranges::any_of(kv_->cache().groups(), [](const KvGroup& group) {
    return group.bytes_of(0) != group.page_bytes;
  });
}

RowInput Session::draft_row(int i) const {
  return {.token = ahead_.node(i).id,
          .position = kept_.position_of(n_done_ + ahead_.depth(i)),
          .slot = ahead_.slot(i),
          .kv = kv_->view(),
          .adapter = adapter_,
          .tail = ahead_.tail(i)};
}

// After a step for one token, which counts by now, and n_drafts behind it.
void Session::keep_drafted(int n_drafts, int n_step_rows, double step_ms) {
  if (n_drafts > 0) ahead_.arm();
  drafted_step_ = {n_step_rows, n_drafts, 1, step_ms + drafting_ms_};
  row_tokens_ = {tokens_[static_cast<size_t>(n_done_ - 1)]};
  for (int i = 0; i < n_drafts; ++i) {
    const DraftNode& node = ahead_.node(i);
    row_tokens_.push_back(node.id);
    ++stats_.drafts[static_cast<size_t>(node.drafter)].n_drafted;
  }
}

void Session::drop_drafts() { ahead_.clear(); }

// What happened since it was told last.
void Session::tell_source() {
  if (drafted_step_.n_rows > 0) drafts_->record_step(std::exchange(drafted_step_, {}));
  if (tokens_.size() == n_told_ && row_tokens_.empty()) return;
  const auto n_vocab = static_cast<size_t>(model().n_vocab());
  std::array<std::array<int32_t, kTopTokens>, 1 + TokenTree::kMaxNodes> next;
  std::array<TopRow, 1 + TokenTree::kMaxNodes> rows;
  for (size_t i = 0; i < row_tokens_.size(); ++i) {
    const int n = top_ids(std::span(logits_).subspan(i * n_vocab, n_vocab), next[i]);
    rows[i] = {row_tokens_[i], std::span(next[i]).first(static_cast<size_t>(n))};
  }
  drafts_->observe({.tokens = tokens_,
                    .n_new = tokens_.size() - n_told_,
                    .rows = std::span(rows).first(row_tokens_.size()),
                    .hidden = {}});
  n_told_ = tokens_.size();
  row_tokens_.clear();
}

}  // namespace edge
