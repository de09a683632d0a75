#include "runtime/session.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "backends/kv_layout.h"
#include "base/os.h"

namespace edge {

// Takes rows from the session's queue and gives back what the step made of them.
class Session::Part final : public StepPart {
 public:
  // `stops` besides the session's own flag.
  Part(const Run& run, const StopCheck& should_stop)
      : StepPart(run.session->seat_),
        session_(*run.session),
        logits_(run.logits),
        hidden_(run.hidden),
        should_stop_(should_stop) {}

  bool wants_all_logits() const override { return logits_ != nullptr; }

  int n_draft_rows() const override { return kept() == nullptr ? session_.ahead_.n_planned() : 0; }

  int n_most_rows() const override {
    return std::min({session_.model().max_rows(), kKeptTokens, session_.most_rows()});
  }

  bool stops() override {
    return session_.is_cancelled_->exchange(false) || (should_stop_ && should_stop_());
  }

  Status begin(int n_rows, int n_drafts, StepRows& step) override {
    Session& s = session_;
    s.row_tokens_.clear();  // their logits go
    EDGE_RETURN_IF_ERROR(s.make_room());
    // No step fails for want of room for drafts.
    if (n_drafts > 0 && !s.kv_->prepare(n_rows + n_drafts).is_ok()) n_drafts = 0;
    EDGE_ASSIGN_OR_RETURN(const KvStepPlan plan, s.kv_->prepare(n_rows));
    n_rows_ = n_rows;
    n_drafts_ = n_drafts;
    is_last_ = n_rows == s.n_left();
    n_before_ = kept() != nullptr ? kept()->size() : 0;
    const bool is_hidden = hidden_ != nullptr;
    std::vector<int32_t>& wanted = is_hidden ? step.hidden_rows : step.logit_rows;
    const size_t n_wanted_before = wanted.size();
    for (int i = 0; i < n_rows; ++i) {
      const int slot = plan.first_position + i;
      const bool is_new = s.kept_.token_of(slot) >= s.n_done_;
      if ((kept() != nullptr && is_new) || (is_last_ && i == n_rows - 1)) {
        wanted.push_back(static_cast<int32_t>(step.rows.size()));
      }
      step.rows.push_back(s.row_at(slot));
    }
    if (n_drafts > 0) s.ahead_.begin(step.rows.back().slot, n_drafts);
    for (int i = 0; i < n_drafts; ++i) {
      wanted.push_back(static_cast<int32_t>(step.rows.size()));
      step.rows.push_back(s.draft_row(i));
    }
    const size_t n_wanted = wanted.size() - n_wanted_before;
    if (n_wanted > 0 && kept() == nullptr && s.brings_tops()) {
      want_tops(n_wanted, step);
    } else {
      want_values(n_wanted, step);
    }
    if (s.hears_hidden_ && kept() == nullptr) hear(n_rows + n_drafts, n_wanted, step);
    return {};
  }

  Status finish(bool is_made, int n_step_rows, double step_ms) override {
    Session& s = session_;
    if (!is_made) {
      if (kept() != nullptr) kept()->resize(n_before_);
      return {};
    }
    s.record(n_rows_, step_ms);
    if (was_capped()) ++s.stats_.n_capped_steps;
    EDGE_RETURN_IF_ERROR(s.kv_->commit(n_rows_));
    s.n_done_ = std::max(s.n_done_, s.n_computed());
    s.kv_->publish(s.tokens_);
    if (s.hears_hidden_ && kept() == nullptr) {
      s.first_heard_ = s.n_computed() - n_rows_;
      s.hidden_rows_.resize(static_cast<size_t>(n_rows_));
      std::iota(s.hidden_rows_.begin(), s.hidden_rows_.end(), 0);
    }
    if (!is_last_ || hidden_ != nullptr) return {};
    if (logits_ != nullptr) {
      s.logits_.assign(logits_->end() - s.model().n_vocab(), logits_->end());
      s.has_tops_ = false;
    }
    s.logits_at_ = s.n_done_;
    s.logits_row_ = 0;
    if (s.drafts_ != nullptr && s.is_decoding_) {
      s.keep_drafted(n_drafts_, n_step_rows - 1 - n_drafts_, step_ms);
    }
    return {};
  }

 private:
  std::vector<float>* kept() const { return logits_ != nullptr ? logits_ : hidden_; }

  void want_tops(size_t n, StepRows& step) {
    Session& s = session_;
    s.logits_at_ = -1;  // until the step has succeeded
    s.has_tops_ = true;
    s.tops_.resize(n);
    step.tops.resize(step.logits.size());
    for (TopTokens& top : s.tops_) step.tops.push_back(&top);
    step.logits.resize(step.tops.size());
  }

  void want_values(size_t n, StepRows& step) {
    if (n == 0) return;
    const bool is_hidden = hidden_ != nullptr;
    const StepModel& model = session_.model();
    const auto n_cols = static_cast<size_t>(is_hidden ? model.d_model() : model.n_vocab());
    float* const to = room(n * n_cols);
    for (size_t i = 0; i < n; ++i) {
      (is_hidden ? step.hidden : step.logits).push_back(to + i * n_cols);
    }
  }

  // The hidden states of all rows, the last ones of the step, of which those that have logits are
  // the last n_logits.
  void hear(int n_rows, size_t n_logits, StepRows& step) {
    Session& s = session_;
    const auto n_cols = static_cast<size_t>(s.model().d_model());
    const auto n = static_cast<size_t>(n_rows);
    s.hidden_.resize(n * n_cols);
    s.hidden_rows_.clear();
    if (n_logits > 0) step.row_hidden.resize(step.logits.size() - n_logits);
    for (size_t i = 0; i < n; ++i) {
      float* const to = s.hidden_.data() + i * n_cols;
      if (i + n_logits >= n) {
        step.row_hidden.push_back(to);
        continue;
      }
      step.hidden_rows.push_back(static_cast<int32_t>(step.rows.size() - n + i));
      step.hidden.push_back(to);
    }
  }

  // For what is wanted of the step.
  float* room(size_t n_floats) {
    if (kept() != nullptr) {
      kept()->resize(n_before_ + n_floats);
      return kept()->data() + n_before_;
    }
    session_.logits_at_ = -1;  // until the step has succeeded
    session_.has_tops_ = false;
    std::vector<float>& logits = session_.logits_;
    if (logits.size() < n_floats) logits.resize(n_floats);  // less would be cleared to grow again
    return logits.data();
  }

  Session& session_;
  std::vector<float>* const logits_;
  std::vector<float>* const hidden_;
  const StopCheck& should_stop_;
  // Of the step.
  int n_rows_ = 0;
  int n_drafts_ = 0;
  bool is_last_ = false;  // of the queue
  size_t n_before_ = 0;   // size of kept()
};

Result<std::unique_ptr<Session>> Session::create(Batcher& batcher, KvCache& cache,
                                                 const SessionOptions& options) {
  EDGE_ASSIGN_OR_RETURN(std::unique_ptr<KvSequence> kv,
                        KvSequence::create(cache, options.n_ctx, options.tree, options.key,
                                           bytes_besides_kv(batcher.model())));
  std::unique_ptr<Session> session(new Session(batcher, std::move(kv)));
  session->adapter_ = options.adapter;
  return session;
}

uint64_t Session::bytes_besides_kv(const StepModel& model) {
  return model.has_head() ? static_cast<uint64_t>(model.n_vocab()) * sizeof(float) : 0;
}

Result<std::unique_ptr<Session>> Session::fork() const {
  EDGE_ASSIGN_OR_RETURN(std::unique_ptr<KvSequence> kv, kv_->fork());
  std::unique_ptr<Session> other(new Session(batcher_, std::move(kv)));
  other->seat_.priority = seat_.priority;
  other->adapter_ = adapter_;
  other->tokens_ = tokens_;
  other->n_done_ = n_done_;
  other->kept_ = kept_;
  other->n_stream_sink_ = n_stream_sink_;
  other->n_stream_drop_ = n_stream_drop_;
  const std::span<const float> logits = last_logits();
  other->logits_.assign(logits.begin(), logits.end());
  if (const TopTokens* top = this->top()) other->tops_.assign(1, *top);
  other->has_tops_ = has_tops_;
  other->expects_top_ = expects_top_;
  other->needs_logits_ = needs_logits_;
  other->logits_at_ = logits_at_;
  other->is_decoding_ = is_decoding_;
  if (drafts_ != nullptr) EDGE_RETURN_IF_ERROR(other->set_drafts(drafts_->fresh()));
  other->stats_.n_reused_tokens = n_done_;
  return other;
}

Session::~Session() {
  batcher_.leave(seat_);
  end_drafts();
  kv_->settle(std::span(tokens_).first(static_cast<size_t>(kv_->n_tokens())));
}

std::span<const int32_t> Session::token_ids() const {
  return std::span(tokens_).first(static_cast<size_t>(n_done_));
}

SessionStats Session::stats() const {
  SessionStats stats = stats_;
  stats.kv_bytes = kv_->held_bytes();
  if (drafts_ != nullptr) {
    stats.saved_ms += drafts_->saved_ms();
    stats.n_capped_steps += drafts_->n_capped();
  }
  return stats;
}

Status Session::append(std::span<const int32_t> ids) {
  if (ids.empty()) return Status::ok();
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= model().n_vocab()) {
      return {Code::kTokenOutOfRange,
              "token " + std::to_string(i) + " is " + std::to_string(ids[i]) +
                  "; the vocabulary has ids 0 to " + std::to_string(model().n_vocab() - 1)};
    }
  }
  EDGE_RETURN_IF_ERROR(check_room(ids.size()));
  if (is_decoding_ && n_pending() == 0 && ids.size() > 1) kv_->end_turn();
  is_decoding_ = n_pending() == 0 && n_tokens() > 0 && n_recompute() == 0 && ids.size() == 1;
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
  return Status::ok();
}

Status Session::run(double budget_ms, std::vector<float>* all_logits,
                    const StopCheck& should_stop) {
  return run_alone({.session = this, .logits = all_logits}, budget_ms, should_stop);
}

Status Session::run_with_hidden(double budget_ms, std::vector<float>& hidden,
                                const StopCheck& should_stop) {
  return run_alone({.session = this, .hidden = &hidden}, budget_ms, should_stop);
}

Status Session::check_run(double budget_ms, bool wants_hidden) const {
  if (!(budget_ms >= 0)) {
    return {Code::kInvalidArgument, "budget_ms must be 0 or more"};
  }
  if (!wants_hidden && !model().has_head()) {
    return {Code::kFeatureUnsupported,
            "this model was saved without its head: it makes embeddings, no text"};
  }
  return {};
}

Status Session::stopped() const {
  return {Code::kCancelled, "cancelled with " + std::to_string(n_left()) + " tokens to go"};
}

// Takes what others have computed of these tokens: all but the last, whose logits are wanted, and
// none of those of which every row is.
void Session::adopt_known(const Run& run) {
  const bool wants_all = run.logits != nullptr || run.hidden != nullptr;
  const size_t n_most = wants_all ? static_cast<size_t>(n_done_) : tokens_.size() - 1;
  if (n_left() < 2 || n_most == 0) return;
  stats_.n_reused_tokens += kv_->adopt(std::span(tokens_).first(n_most));
  stats_.n_disk_tokens = kv_->n_disk_tokens();
  n_done_ = std::max(n_done_, n_computed());
}

Status Session::run_alone(Run run, double budget_ms, const StopCheck& should_stop) {
  EDGE_RETURN_IF_ERROR(check_run(budget_ms, run.hidden != nullptr));
  Part part(run, should_stop);
  StepPart* const parts[] = {&part};
  const int64_t start_ns = monotonic_ns();
  do {
    if (part.stops()) return stopped();
    EDGE_RETURN_IF_ERROR(begin_run(run));
    if (n_pending() == 0) return Status::ok();
    draft();
    batcher_.step(parts);
    if (part.was_stopped()) return stopped();
    EDGE_RETURN_IF_ERROR(part.status());
  } while (static_cast<double>(monotonic_ns() - start_ns) * 1e-6 < budget_ms);
  return Status::ok();
}

void Session::run_together(std::span<Run> runs, double budget_ms, const StopCheck& should_stop) {
  bool is_any_whole = false;
  bool is_over = false;  // once for all: a check may say so only once
  const StopCheck stops = [&] { return is_over = is_over || (should_stop && should_stop()); };
  std::vector<std::unique_ptr<Part>> parts;
  std::vector<StepPart*> left;
  for (Run& run : runs) {
    run.status = run.session->check_run(budget_ms, run.hidden != nullptr);
    parts.push_back(std::make_unique<Part>(run, stops));
    if (!run.status.is_ok()) continue;
    if (parts.back()->stops()) {
      run.status = run.session->stopped();
    } else if (run.session->n_pending() > 0) {
      run.status = run.session->begin_run(run);
      is_any_whole |= run.session->n_pending() == 0;
      if (run.status.is_ok() && run.session->n_pending() > 0) left.push_back(parts.back().get());
    }
  }
  const int64_t start_ns = monotonic_ns();
  while (!left.empty() && !is_any_whole) {
    for (const Run& run : runs) {
      if (run.status.is_ok() && run.session->n_pending() > 0) run.session->draft();
    }
    runs.front().session->batcher_.step(left);
    for (size_t i = 0; i < runs.size(); ++i) {
      if (!parts[i]->is_done() || !runs[i].status.is_ok()) continue;
      Session& session = *runs[i].session;
      runs[i].status = parts[i]->was_stopped() ? session.stopped() : parts[i]->status();
      if (!runs[i].status.is_ok()) {
        std::erase(left, parts[i].get());
      } else if (session.n_pending() == 0) {
        is_any_whole = true;
      }
    }
    if (static_cast<double>(monotonic_ns() - start_ns) * 1e-6 >= budget_ms) break;
  }
}

void Session::record(int n_rows, double step_ms) {
  ++stats_.n_steps;
  (is_decoding_ ? stats_.decode_ms : stats_.prefill_ms) += step_ms;
  count_tokens(n_rows);
}

void Session::count_tokens(int n_rows) {
  if (is_decoding_) {
    stats_.n_decode_tokens += n_rows;
    return;
  }
  const int n_again = std::min(n_rows, n_recompute());
  stats_.n_recomputed_tokens += n_again;
  stats_.n_prefill_tokens += n_rows - n_again;
}

Status Session::check_rewind(int n_tokens) const {
  if (n_tokens >= 0 && n_tokens <= n_done_) return {};
  return {Code::kInvalidArgument, "rewind to " + std::to_string(n_tokens) + ": must be from 0 to " +
                                      std::to_string(n_done_) + ", the tokens processed"};
}

// Whether rewind() does.
bool Session::keeps_kv_at(int n_tokens) const {
  const int n_kept = std::min(n_tokens, n_computed());
  return n_kept >= kept_.tail() && kv_->plan().is_whole_at(kept_.slot_of(n_kept));
}

Status Session::rewind(int n_tokens) {
  EDGE_RETURN_IF_ERROR(check_rewind(n_tokens));
  drop_drafts();
  const int n_kept = std::min(n_tokens, n_computed());
  const bool keeps_kv = keeps_kv_at(n_tokens);
  if (!keeps_kv && n_tokens > n_ctx() && !is_streaming()) {
    return {Code::kContextOverflow,
            "rewind to " + std::to_string(n_tokens) + ": the KV for that is gone, and so many " +
                "tokens exceed the context of " + std::to_string(n_ctx()) +
                "; rewind to at most that, or to at least " + std::to_string(kept_.tail())};
  }
  kv_->rewind(keeps_kv ? kept_.slot_of(n_kept) : 0);
  keeps_kv ? kept_.rewind(n_kept) : kept_.clear();
  n_done_ = n_tokens;
  tokens_.resize(static_cast<size_t>(n_tokens));
  forget_rows();  // of a text that may not go on like that
  last_step_ = {};
  n_heard_ = std::min(n_heard_, tokens_.size());
  if (tokens_.size() < n_told_) {
    n_told_ = tokens_.size();
    drafts_->rewind(tokens_);
  }
  if (n_tokens < logits_at_) logits_at_ = -1;  // other tokens may come to stand there
  return Status::ok();
}

Status Session::set_adapter(const Adapter* adapter, std::string_view key) {
  EDGE_RETURN_IF_ERROR(rewind(0));
  kv_->set_key(key);
  adapter_ = adapter;
  return Status::ok();
}

// Of token logits_at_ - 1; none without.
std::span<const float> Session::last_logits() const {
  if (logits_at_ < 0 || has_tops_) return {};
  const auto n_vocab = static_cast<size_t>(model().n_vocab());
  return std::span(logits_).subspan(static_cast<size_t>(logits_row_) * n_vocab, n_vocab);
}

const TopTokens* Session::top() const {
  const bool is_there = has_tops_ && n_pending() == 0 && logits_at_ == n_tokens();
  return is_there ? &tops_[static_cast<size_t>(logits_row_)] : nullptr;
}

// Who asks once for all logits after steps that brought the likeliest tokens may do so every time.
Status Session::bring_logits() {
  if (top() == nullptr) return {};
  needs_logits_ = true;
  const int32_t last = tokens_.back();
  EDGE_RETURN_IF_ERROR(rewind(n_done_ - 1));
  EDGE_RETURN_IF_ERROR(append({&last, 1}));
  return run(std::numeric_limits<double>::infinity(), nullptr);
}

Result<std::span<const float>> Session::logits() {
  EDGE_RETURN_IF_ERROR(bring_logits());
  if (n_pending() == 0 && logits_at_ == n_tokens()) return last_logits();
  if (n_pending() > 0) {
    return {Code::kInvalidArgument,
            "no logits: " + std::to_string(n_pending()) + " tokens are pending; run() first"};
  }
  return {Code::kInvalidArgument,
          "no logits: append tokens and run() first (rewind() drops those of later tokens, and "
          "runs for hidden states make none)"};
}

}  // namespace edge
