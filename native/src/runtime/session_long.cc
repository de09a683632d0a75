// What a session does for long contexts in little memory: shift, stream, compress, trim.
#include <algorithm>
#include <limits>
#include <string>

#include "base/os.h"
#include "runtime/session.h"

namespace edge {
namespace {

Status wrong(const std::string& text) { return {Code::kInvalidArgument, text}; }

Status check_pages(const char* name, int n_tokens, int least) {
  if (n_tokens >= least && n_tokens % kPageTokens == 0) return Status::ok();
  return wrong(std::string(name) + " is " + std::to_string(n_tokens) +
               "; it must be a multiple of " + std::to_string(kPageTokens) + ", at least " +
               std::to_string(least));
}

}  // namespace

Status Session::shift(int n_sink, int n_drop) {
  EDGE_RETURN_IF_ERROR(check_pages("n_sink", n_sink, kFirstTokens));
  EDGE_RETURN_IF_ERROR(check_pages("n_drop", n_drop, kPageTokens));
  if (int64_t{n_sink} + n_drop > kv_->n_tokens()) {
    return wrong("n_sink + n_drop are " + std::to_string(int64_t{n_sink} + n_drop) +
                 ", but the KV has " + std::to_string(kv_->n_tokens()) + " tokens");
  }
  if (kept_.is_compressed()) {
    return {Code::kFeatureUnsupported,
            "the session is compressed: its tokens keep their positions and cannot move down"};
  }
  EDGE_RETURN_IF_ERROR(bring_logits());  // of the tokens that are there
  drop_drafts();
  const int first_page = n_sink / kPageTokens, n_pages = n_drop / kPageTokens;
  EDGE_RETURN_IF_ERROR(kv_->plan().check_drop(first_page, n_pages));
  EDGE_RETURN_IF_ERROR(kv_->detach());
  const KvSlotRange moved{kv_->view(), n_sink + n_drop, kv_->n_tokens() - n_sink - n_drop};
  if (const Status status = model().turn_keys(moved, n_drop); !status.is_ok()) {
    if (status.code() == Code::kNumeric) drop_kv();
    return status;
  }
  const int n_tokens = n_computed();
  EDGE_RETURN_IF_ERROR(kv_->drop_pages(first_page, n_pages));
  kept_.shift(n_sink, n_drop, n_tokens);
  return Status::ok();
}

// What is there can no longer be used: the next run() computes all again.
void Session::drop_kv() {
  kv_->rewind(0);
  kept_.clear();
}

Status Session::stream(int n_sink, int window) {
  EDGE_RETURN_IF_ERROR(check_pages("n_sink", n_sink, kFirstTokens));
  const int n_drop = (n_ctx() - n_sink - std::max(window, 0)) / kPageTokens * kPageTokens;
  if (window < 1 || int64_t{n_sink} + window > n_ctx() - kPageTokens) {
    return wrong("window is " + std::to_string(window) +
                 "; it must be at least 1, and n_sink + window at most n_ctx - " +
                 std::to_string(kPageTokens) + ", " + std::to_string(n_ctx() - kPageTokens));
  }
  if (kept_.is_compressed()) {
    return {Code::kFeatureUnsupported,
            "the session is compressed: its tokens keep their positions and cannot move down"};
  }
  // Says now what would else be said in the middle of a text.
  EDGE_RETURN_IF_ERROR(model().turn_keys({kv_->view(), 0, 0}, n_drop));
  for (const KvGroup& group : kv_->cache().groups()) {
    if (group.window <= n_ctx() - n_sink - n_drop || group.window >= n_ctx()) continue;
    return wrong("a layer of this model sees " + std::to_string(group.window) +
                 " tokens back; window must be at least that");
  }
  n_stream_sink_ = n_sink;
  n_stream_drop_ = n_drop;
  return Status::ok();
}

RowInput Session::row_at(int slot) const {
  const int token = kept_.token_of(slot);
  return {.token = tokens_[static_cast<size_t>(token)],
          .position = kept_.position_of(token),
          .slot = slot,
          .kv = kv_->view(),
          .adapter = adapter_};
}

Status Session::check_room(size_t n_more) const {
  const size_t n_all = tokens_.size() + n_more;
  const size_t n_slots = n_all - static_cast<size_t>(kept_.n_gone());
  const auto too_many = [&](size_t n_before, const std::string& limit) {
    return Status{Code::kContextOverflow, std::to_string(n_before) + " tokens and " +
                                              std::to_string(n_more) + " more exceed " + limit};
  };
  if (!is_streaming() && n_slots > static_cast<size_t>(n_ctx())) {
    return too_many(n_slots - n_more,
                    "the context of " + std::to_string(n_ctx()) +
                        "; shorten the input, or make a session with a larger n_ctx");
  }
  if (kept_.is_compressed() && n_all > static_cast<size_t>(model().max_positions())) {
    return too_many(tokens_.size(), "the " + std::to_string(model().max_positions()) +
                                        " positions of the model; compressing frees memory, but "
                                        "no positions");
  }
  if (n_all > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return too_many(tokens_.size(), "what a session can count; begin a new one");
  }
  return Status::ok();
}

Result<int> Session::most_tokens_after(int n_tokens) const {
  EDGE_RETURN_IF_ERROR(check_rewind(n_tokens));
  if (kept_.is_all() || !keeps_kv_at(n_tokens)) return n_ctx();
  const int64_t n_most = int64_t{n_ctx()} + kept_.n_gone();
  const int64_t n_positions = int64_t{model().max_positions()} + kept_.n_shifted();
  return static_cast<int>(std::min({n_most, n_positions, int64_t{INT32_MAX}}));
}

// No step goes beyond the place where the KV is shifted, so that this does not depend on the cut.
int Session::most_rows() const {
  if (!is_streaming()) return n_left();
  const int n_room = n_ctx() - kv_->n_tokens();
  return std::min(n_left(), n_room > 0 ? n_room : n_stream_drop_);
}

Status Session::make_room() {
  if (!is_streaming() || kv_->n_tokens() < n_ctx()) return Status::ok();
  return shift(n_stream_sink_, n_stream_drop_);
}

// The last tokens of the KV once more, to the same slots, for what they pay attention to.
Status Session::process_again(int n_tokens, float* shares, const StopCheck& should_stop) {
  kv_->rewind(kv_->n_tokens() - n_tokens);
  EDGE_ASSIGN_OR_RETURN(const KvStepPlan plan, kv_->prepare(n_tokens));
  std::vector<RowInput> rows;
  for (int i = 0; i < n_tokens; ++i) rows.push_back(row_at(plan.first_position + i));
  const int64_t start_ns = monotonic_ns();
  EDGE_RETURN_IF_ERROR(model().step(rows, {.shares = shares}, should_stop));
  ++stats_.n_steps;
  stats_.n_recomputed_tokens += n_tokens;
  stats_.prefill_ms += static_cast<double>(monotonic_ns() - start_ns) * 1e-6;
  return kv_->commit(n_tokens);
}

Status Session::compress(const KvCompression& compression, const StopCheck& should_stop) {
  if (n_pending() > 0 || n_recompute() > 0) {
    return wrong(std::to_string(n_pending() + n_recompute()) +
                 " tokens are not in the KV yet; run() first");
  }
  if (is_streaming() || kept_.is_shifted()) {
    return {Code::kFeatureUnsupported,
            "a session that has moved tokens down, or will, cannot be compressed"};
  }
  for (const KvGroup& group : kv_->cache().groups()) {
    if (group.window == 0) continue;
    if (group.is_state) {
      return {Code::kFeatureUnsupported,
              "this model has short convolutions, whose states cannot be compressed with the KV; "
              "shift() or trim() instead"};
    }
    return {Code::kFeatureUnsupported,
            "this model has layers that see " + std::to_string(group.window) +
                " tokens back, which need no compression; those that see all cannot be compressed "
                "beside them"};
  }
  const int n_slots = kv_->n_tokens();
  if (compression.n_keep >= n_slots && compression.n_keep > 0) return Status::ok();
  EDGE_RETURN_IF_ERROR(compression.check(n_slots));
  const int n_window = std::min(compression.n_window, model().max_rows());
  if (n_window < compression.n_window || n_done_ - n_window < kept_.tail()) {
    return wrong("window is " + std::to_string(compression.n_window) +
                 ", but only so many tokens can be processed at once, or were not compressed "
                 "before: " +
                 std::to_string(std::min(n_window, n_done_ - kept_.tail())));
  }
  EDGE_RETURN_IF_ERROR(bring_logits());  // of the tokens that are there
  drop_drafts();
  const auto n_heads = static_cast<size_t>(model().n_kv_heads());
  const auto n_columns = static_cast<size_t>(n_slots);
  std::vector<float> shares(n_heads * n_columns);
  EDGE_RETURN_IF_ERROR(process_again(n_window, shares.data(), should_stop));
  std::vector<std::vector<int32_t>> kept;
  for (size_t head = 0; head < n_heads; ++head) {
    const auto row = std::span(shares).subspan(head * n_columns, n_columns);
    kept.push_back(choose_slots(row, compression));
  }
  EDGE_RETURN_IF_ERROR(kv_->detach());
  if (const Status status = model().keep_slots(kv_->view(), kept); !status.is_ok()) {
    if (status.code() == Code::kNumeric) drop_kv();
    return status;
  }
  kv_->rewind(compression.n_keep);
  kept_.compress(kept, n_window, n_done_);
  return Status::ok();
}

uint64_t Session::trim(uint64_t n_bytes) {
  drop_drafts();
  return kv_->give_back(n_bytes, kept_.is_all() ? 0 : kept_.slot_of(kept_.n_fixed()));
}

}  // namespace edge
