// What a session does with drafts. The KV's plan, its pages and what others share of them know only
// of tokens that were appended and processed; rows of drafts stand in slots behind.
#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "base/os.h"
#include "runtime/session.h"
#include "runtime/top_ids.h"

namespace edge {

Status Session::set_drafts(std::unique_ptr<DraftSource> source) {
  end_drafts();
  if (source == nullptr || !model().has_head()) return Status::ok();
  const uint64_t n_bytes =
      static_cast<uint64_t>(model().n_vocab()) * TokenTree::kMaxNodes * sizeof(float) +
      source->most_bytes();
  EDGE_RETURN_IF_ERROR(kv_->claim(n_bytes, "a session's drafts"));
  draft_bytes_ = n_bytes;
  drafts_ = std::move(source);
  is_drafting_ = drafts_->is_awake();
  return Status::ok();
}

void Session::end_drafts() {
  drop_drafts();
  if (drafts_ == nullptr) return;
  if (n_heard_ > 0) {
    if (is_drafting_) tell_source();
    drafts_->end(last_step_, tokens_);
  }
  stats_.saved_ms += drafts_->saved_ms();
  stats_.n_capped_steps += drafts_->n_capped();
  drafts_.reset();
  kv_->cache().unclaim(std::exchange(draft_bytes_, 0));
  forget_rows();
  is_drafting_ = hears_hidden_ = false;
  hidden_ = {};
  last_step_ = {};
  n_told_ = n_heard_ = 0;
}

void Session::forget_rows() {
  row_tokens_.clear();
  hidden_rows_.clear();
}

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
    ++last_step_.n_tokens;
    if (hears_hidden_) hidden_rows_.push_back(1 + node);
    ++stats_.drafts[static_cast<size_t>(ahead_.node(node).drafter)].n_accepted;
    ahead_.advance(node);
  }
  return Status::ok();
}

void Session::expect_draws(const SamplerParams& params, uint64_t step) {
  if (drafts_ == nullptr) return;
  drawn_ = params;
  // Steps go on with the tokens, from wherever the caller began to count.
  first_draw_ = step - static_cast<uint64_t>(n_tokens());
}

// Of what follows all tokens.
std::optional<ComingDraws> Session::coming_draws() const {
  if (!(drawn_.temperature > 0)) return {};
  return ComingDraws{.seed = drawn_.seed,
                     .step = first_draw_ + static_cast<uint64_t>(tokens_.size()),
                     .params = &drawn_};
}

// For the step to come, if it is one for a single token.
void Session::draft() {
  ahead_.clear();
  if (drafts_ == nullptr) return;
  if (is_decoding_) begin_draft_step();
  hears_hidden_ = is_drafting_ && drafts_->wants_hidden();
  if (!is_drafting_ || !(is_decoding_ || hears_hidden_)) return forget_rows();
  const bool is_long = n_known() > n_told_ + static_cast<size_t>(TokenTree::kMaxNodes) + 1;
  int64_t start_ns = monotonic_ns();
  tell_source();
  // What a prompt or a rest has left to learn comes once and is not what drafting costs.
  if (is_long) start_ns = monotonic_ns();
  if (is_decoding_) {
    const std::optional<ComingDraws> draws = coming_draws();
    const TokenTree& tree =
        drafts_->propose(tokens_, most_drafts(), n_other_rows_, draws ? &*draws : nullptr);
    ahead_.plan(tree, !model().has_draft_trees() || meets_other_format(tree.size()));
  }
  drafting_ms_ = static_cast<double>(monotonic_ns() - start_ns) * 1e-6;
}

void Session::begin_draft_step() {
  const std::span<const int32_t> known = std::span(tokens_).first(n_known());
  is_drafting_ = drafts_->begin_step(std::exchange(last_step_, {}), known, known.size() - n_heard_);
  n_heard_ = known.size();
  drafting_ms_ = 0;
}

// Of tokens_, those processed and the next one to process.
size_t Session::n_known() const {
  return std::min(tokens_.size(), static_cast<size_t>(n_done_) + 1);
}

int Session::most_drafts() const {
  if (!is_decoding_ || n_pending() != 1 || n_recompute() > 0) return 0;
  const int n_slots = n_ctx() - kv_->n_tokens() - 1;
  const int n_positions = model().max_positions() - kept_.position_of(n_done_) - 1;
  return std::min(
      {TokenTree::kMaxNodes, n_slots, n_positions, model().max_rows() - 1, model().most_drafts()});
}

// Whether so many drafts would stand partly in the first pages and partly behind, where a token has
// other bytes: none can be moved between them.
bool Session::meets_other_format(int n_drafts) const {
  const int slot = kv_->n_tokens() + 1;
  if (slot >= kFirstTokens || slot + n_drafts <= kFirstTokens) return false;
  return model().has_own_first_pages();
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
void Session::keep_drafted(int n_drafts, int n_other_rows, double step_ms) {
  if (n_drafts < ahead_.n_planned()) drafts_->cut(n_drafts);
  if (n_drafts > 0) ahead_.arm();
  n_other_rows_ = n_other_rows;
  last_step_ = {
      .n_tokens = 1, .n_other_rows = n_other_rows, .ms = step_ms, .drafting_ms = drafting_ms_};
  if (!is_drafting_) return;
  row_tokens_ = {tokens_[static_cast<size_t>(n_done_ - 1)]};
  for (int i = 0; i < n_drafts; ++i) {
    const DraftNode& node = ahead_.node(i);
    row_tokens_.push_back(node.id);
    ++stats_.drafts[static_cast<size_t>(node.drafter)].n_drafted;
  }
}

// Of the tokens that came since it was told last, the next one to process included.
void Session::tell_source() {
  const size_t n_known = this->n_known();
  if (n_known == n_told_ && row_tokens_.empty()) return;
  const auto n_vocab = static_cast<size_t>(model().n_vocab());
  std::array<std::array<int32_t, kTopTokens>, 1 + TokenTree::kMaxNodes> next;
  std::array<TopRow, 1 + TokenTree::kMaxNodes> rows;
  for (size_t i = 0; i < row_tokens_.size(); ++i) {
    rows[i].token = row_tokens_[i];
    if (has_tops_) {
      const auto n = static_cast<size_t>(std::min(tops_[i].n, kTopTokens));
      rows[i].next = std::span(tops_[i].ids).first(n);
      continue;
    }
    const int n = top_ids(std::span(logits_).subspan(i * n_vocab, n_vocab), next[i]);
    rows[i].next = std::span(next[i]).first(static_cast<size_t>(n));
  }
  const std::span<const int32_t> known = std::span(tokens_).first(n_known);
  const size_t n_bare = n_without_hidden(n_known);
  if (n_bare > n_told_ && n_bare < n_known) {
    drafts_->observe(
        {.tokens = known.first(n_bare), .n_new = n_bare - n_told_, .rows = {}, .hidden = {}});
  }
  const size_t n_before = n_bare < n_known ? n_bare : n_told_;
  const std::vector<float> hidden = hidden_before(n_bare, n_known);
  drafts_->observe({.tokens = known,
                    .n_new = n_known - n_before,
                    .rows = std::span(rows).first(row_tokens_.size()),
                    .hidden = hidden});
  n_told_ = n_known;
  forget_rows();
}

// The first of the tokens to tell from which on the hidden state of the one before each is there;
// n_known: of none.
size_t Session::n_without_hidden(size_t n_known) const {
  const auto first_heard = static_cast<size_t>(first_heard_);
  if (hidden_rows_.empty() || n_known > first_heard + hidden_rows_.size() + 1) return n_known;
  return std::min(n_known, std::max(n_told_, first_heard == 0 ? 0 : first_heard + 1));
}

// [end - first][d_model]: of the token before each; zeros before the very first one.
std::vector<float> Session::hidden_before(size_t first, size_t end) const {
  const auto n_cols = static_cast<size_t>(model().d_model());
  std::vector<float> hidden((end - first) * n_cols);
  for (size_t token = std::max<size_t>(first, 1); token < end; ++token) {
    const size_t at = token - 1 - static_cast<size_t>(first_heard_);
    const float* const from = hidden_.data() + static_cast<size_t>(hidden_rows_[at]) * n_cols;
    std::copy_n(from, n_cols, hidden.data() + (token - first) * n_cols);
  }
  return hidden;
}

}  // namespace edge
