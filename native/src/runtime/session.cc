#include "runtime/session.h"

#include <algorithm>
#include <string>

#include "backends/kv_layout.h"
#include "base/os.h"

namespace edge {
namespace {

constexpr size_t kMaxLogitFloats = size_t{4} << 20;  // of one step: 16 MiB

// Room for n_rows rows more behind `values`.
float* grow(std::vector<float>& values, size_t n_rows, int n_cols) {
  const size_t n_before = values.size();
  values.resize(n_before + n_rows * static_cast<size_t>(n_cols));
  return values.data() + n_before;
}

}  // namespace

Result<std::unique_ptr<Session>> Session::create(StepModel& model, KvCache& cache, int n_ctx,
                                                 const Adapter* adapter) {
  EDGE_ASSIGN_OR_RETURN(std::unique_ptr<KvSequence> kv, KvSequence::create(cache, n_ctx));
  std::unique_ptr<Session> session(new Session(model, std::move(kv)));
  session->adapter_ = adapter;
  return session;
}

std::span<const int32_t> Session::token_ids() const {
  return std::span(tokens_).first(static_cast<size_t>(n_done_));
}

SessionStats Session::stats() const {
  SessionStats stats = stats_;
  stats.kv_bytes = kv_->held_bytes();
  return stats;
}

Status Session::append(std::span<const int32_t> ids) {
  if (ids.empty()) return Status::ok();
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= model_.n_vocab()) {
      return {Code::kTokenOutOfRange,
              "token " + std::to_string(i) + " is " + std::to_string(ids[i]) +
                  "; the vocabulary has ids 0 to " + std::to_string(model_.n_vocab() - 1)};
    }
  }
  if (ids.size() > static_cast<size_t>(n_ctx()) - tokens_.size()) {
    return {Code::kContextOverflow,
            std::to_string(tokens_.size()) + " tokens and " + std::to_string(ids.size()) +
                " more exceed the context of " + std::to_string(n_ctx()) +
                "; shorten the input, or make a session with a larger n_ctx"};
  }
  is_decoding_ = n_pending() == 0 && n_tokens() > 0 && n_recompute() == 0 && ids.size() == 1;
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
  return Status::ok();
}

Status Session::run(double budget_ms, std::vector<float>* all_logits,
                    const StopCheck& should_stop) {
  return run_steps(budget_ms, {.logits = all_logits}, should_stop);
}

Status Session::run_with_hidden(double budget_ms, std::vector<float>& hidden,
                                const StopCheck& should_stop) {
  return run_steps(budget_ms, {.hidden = &hidden}, should_stop);
}

Status Session::run_steps(double budget_ms, const AllRows& all, const StopCheck& should_stop) {
  if (!(budget_ms >= 0)) {
    return {Code::kInvalidArgument, "budget_ms must be 0 or more"};
  }
  if (all.hidden == nullptr && !model_.has_head()) {
    return {Code::kFeatureUnsupported,
            "this model was saved without its head: it makes embeddings, no text"};
  }
  const auto stops = [&] {
    return is_cancelled_->exchange(false) || (should_stop && should_stop());
  };
  const int64_t start_ns = monotonic_ns();
  do {
    if (stops()) {
      return {Code::kCancelled, "cancelled with " + std::to_string(n_left()) + " tokens to go"};
    }
    if (n_pending() == 0) return Status::ok();
    EDGE_RETURN_IF_ERROR(step(next_rows(all.logits != nullptr), all, stops));
  } while (static_cast<double>(monotonic_ns() - start_ns) * 1e-6 < budget_ms);
  return Status::ok();
}

int Session::next_rows(bool wants_all_logits) const {
  int n_most = std::min(model_.max_rows(), kKeptTokens);
  if (wants_all_logits) {
    const size_t n_fit = kMaxLogitFloats / static_cast<size_t>(model_.n_vocab()) + 1;
    if (n_fit < static_cast<size_t>(n_most)) n_most = static_cast<int>(n_fit);
  }
  return std::min(n_most, n_left());
}

Status Session::step(int n_rows, const AllRows& all, const StopCheck& should_stop) {
  EDGE_ASSIGN_OR_RETURN(const KvStepPlan plan, kv_->prepare(n_rows));
  std::vector<RowInput> rows(static_cast<size_t>(n_rows));
  std::vector<int32_t> wanted;
  const bool wants_all = all.logits != nullptr || all.hidden != nullptr;
  const bool is_last = n_rows == n_left();
  for (int i = 0; i < n_rows; ++i) {
    const int position = plan.first_position + i;
    rows[static_cast<size_t>(i)] = {tokens_[static_cast<size_t>(position)], position, kv_->view(),
                                    adapter_};
    const bool is_new = position >= n_done_;
    if ((wants_all && is_new) || (is_last && i == n_rows - 1)) wanted.push_back(i);
  }
  const size_t n_vocab = static_cast<size_t>(model_.n_vocab());
  std::vector<float>* const kept = all.logits != nullptr ? all.logits : all.hidden;
  const size_t n_before = kept != nullptr ? kept->size() : 0;
  StepOutputs outputs{.rows = wanted};
  if (all.logits != nullptr) {
    outputs.logits = grow(*all.logits, wanted.size(), model_.n_vocab());
  } else if (all.hidden != nullptr) {
    outputs.hidden = grow(*all.hidden, wanted.size(), model_.d_model());
  } else if (is_last) {
    logits_at_ = -1;  // until the step has succeeded
    logits_.resize(n_vocab);
    outputs.logits = logits_.data();
  }
  const int64_t start_ns = monotonic_ns();
  if (Status status = model_.step(rows, outputs, should_stop); !status.is_ok()) {
    if (kept != nullptr) kept->resize(n_before);
    return status;
  }
  record(n_rows, static_cast<double>(monotonic_ns() - start_ns) * 1e-6);
  EDGE_RETURN_IF_ERROR(kv_->commit(n_rows));
  n_done_ = std::max(n_done_, kv_->n_tokens());
  if (!is_last || all.hidden != nullptr) return Status::ok();
  if (all.logits != nullptr) {
    logits_.assign(all.logits->end() - static_cast<std::ptrdiff_t>(n_vocab), all.logits->end());
  }
  logits_at_ = n_done_;
  return Status::ok();
}

void Session::record(int n_rows, double step_ms) {
  ++stats_.n_steps;
  if (is_decoding_) {
    ++stats_.n_decode_tokens;
    stats_.decode_ms += step_ms;
    return;
  }
  const int n_again = std::min(n_rows, n_recompute());
  stats_.n_recomputed_tokens += n_again;
  stats_.n_prefill_tokens += n_rows - n_again;
  stats_.prefill_ms += step_ms;
}

Status Session::rewind(int n_tokens) {
  if (n_tokens < 0 || n_tokens > n_done_) {
    return {Code::kInvalidArgument, "rewind to " + std::to_string(n_tokens) +
                                        ": must be from 0 to " + std::to_string(n_done_) +
                                        ", the tokens processed"};
  }
  kv_->rewind(std::min(n_tokens, kv_->n_tokens()));
  n_done_ = n_tokens;
  tokens_.resize(static_cast<size_t>(n_tokens));
  if (n_tokens < logits_at_) logits_at_ = -1;  // other tokens may come to stand there
  return Status::ok();
}

Status Session::set_adapter(const Adapter* adapter) {
  EDGE_RETURN_IF_ERROR(rewind(0));
  adapter_ = adapter;
  return Status::ok();
}

Result<std::span<const float>> Session::logits() const {
  if (n_pending() == 0 && logits_at_ == n_tokens()) return std::span<const float>(logits_);
  if (n_pending() > 0) {
    return {Code::kInvalidArgument,
            "no logits: " + std::to_string(n_pending()) + " tokens are pending; run() first"};
  }
  return {Code::kInvalidArgument,
          "no logits: append tokens and run() first (rewind() drops those of later tokens, and "
          "runs for hidden states make none)"};
}

}  // namespace edge
