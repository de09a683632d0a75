#include "runtime/batcher.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/os.h"

namespace edge {

// Lives on the stack of its thread, so that no child of a fork() ever destroys it.
struct BatchWaiter {
  std::condition_variable wakes;
};

namespace {

constexpr std::chrono::milliseconds kPollPeriod{20};  // of a waiting thread, for stops()
constexpr double kMostStopMs = 40;  // that a prompt that was stopped waits for the end of a step
constexpr size_t kMostLogitFloats = size_t{4} << 20;  // of one step: 16 MiB
// Which sequences of the step before a step waits for: those that as a rule are away no longer. Who
// comes a little later waits for all of a step that it could have been in, and one row costs nearly
// as much as eight.
constexpr double kPromptShare = 0.25;  // of a step's time
constexpr double kMostPromptMs = 100;
// How long, since each of them may be late once.
constexpr double kPatience = 2;     // times as long
constexpr double kNewShare = 0.25;  // of the newest measurement in BatchSeat::away_ms

Status stopped_status() { return {Code::kCancelled, "the sequence was stopped"}; }

bool goes_first(const BatchSeat& a, const BatchSeat& b) {
  return a.priority != b.priority ? a.priority > b.priority : a.ticket < b.ticket;
}

double ms_since(int64_t start_ns) { return static_cast<double>(monotonic_ns() - start_ns) * 1e-6; }

}  // namespace

void Batcher::step(std::span<StepPart* const> parts) {
  BatchWaiter waiter;
  Lock lock(mutex_);
  const uint64_t n_forks = n_forks_;
  for (StepPart* part : parts) arrive(*part, waiter);
  const auto is_over = [&] {
    bool is_any_done = parts.empty();
    for (const StepPart* part : parts) {
      if (part->state_ == StepPart::State::kInStep) return false;
      is_any_done |= part->is_done();
    }
    return is_any_done;
  };
  while (!is_over()) {
    if (leader_ == nullptr) {
      lead(lock, waiter);
    } else if (waiter.wakes.wait_for(lock, kPollPeriod) == std::cv_status::timeout) {
      poll(lock, parts);
    }
    if (n_forks_ == n_forks) continue;
    for (StepPart* part : parts) {
      part->state_ = StepPart::State::kDone;
      part->status_ = {Code::kCancelled, "this process is a fork() made during the step"};
    }
    return;
  }
  for (StepPart* part : parts) {
    if (part->state_ == StepPart::State::kWaiting) withdraw(*part);
  }
  if (leader_ == nullptr && !waiting_.empty()) waiting_.front()->waiter_->wakes.notify_one();
}

// How soon sequences are back that steps wait for.
double Batcher::prompt_await_ms() const {
  const int n_awaited = std::max(1, static_cast<int>(awaited_.size()));
  return std::min(kPromptShare * clock_.step_ms(n_awaited), kMostPromptMs);
}

void Batcher::arrive(StepPart& part, BatchWaiter& waiter) {
  BatchSeat& seat = part.seat_;
  part.waiter_ = &waiter;
  part.state_ = StepPart::State::kWaiting;
  part.status_ = {};
  part.is_stopped_ = false;
  if (seat.ticket == 0) {
    seat.ticket = next_ticket_++;
    const double most_ms = 2 * prompt_await_ms();  // who comes back after minutes may be prompt yet
    if (seat.last_end_ns != 0) {
      seat.away_ms += kNewShare * (std::min(ms_since(seat.last_end_ns), most_ms) - seat.away_ms);
    }
  }
  waiting_.push_back(&part);
  if (!seat.is_awaited) return;
  seat.is_awaited = false;
  std::erase(awaited_, &seat);
  if (awaited_.empty() && leader_ != nullptr) leader_->wakes.notify_one();
}

void Batcher::withdraw(StepPart& part) {
  std::erase(waiting_, &part);
  part.state_ = StepPart::State::kIdle;
}

void Batcher::leave(BatchSeat& seat) {
  const Lock lock(mutex_);
  if (!std::exchange(seat.is_awaited, false)) return;
  std::erase(awaited_, &seat);
  if (awaited_.empty() && leader_ != nullptr) leader_->wakes.notify_one();
}

void Batcher::poll(Lock& lock, std::span<StepPart* const> parts) {
  for (StepPart* part : parts) {
    if (part->is_done() || part->is_stopped_) continue;
    lock.unlock();
    const bool is_stopped = part->stops();
    lock.lock();
    if (!is_stopped) continue;
    part->is_stopped_ = true;
    if (part->state_ != StepPart::State::kWaiting) continue;  // who leads will see it
    withdraw(*part);
    part->seat_.ticket = 0;
    part->state_ = StepPart::State::kDone;
    part->status_ = stopped_status();
  }
}

void Batcher::lead(Lock& lock, BatchWaiter& waiter) {
  leader_ = &waiter;
  await_return(lock, waiter);
  const std::vector<StepPart*> parts = choose();
  const uint64_t n_forks = n_forks_;
  lock.unlock();
  const std::vector<StepPart*> again = make(parts, waiter);
  lock.lock();
  if (n_forks_ != n_forks) return;  // the other threads' parts are gone
  leader_ = nullptr;
  for (StepPart* part : again) {
    part->state_ = StepPart::State::kWaiting;
    waiting_.push_back(part);
  }
  hand_out(parts);
}

void Batcher::await_return(Lock& lock, BatchWaiter& waiter) {
  const int64_t until_ns = last_end_ns_ + static_cast<int64_t>(kPatience * prompt_await_ms() * 1e6);
  while (!awaited_.empty()) {
    const int64_t left_ns = until_ns - monotonic_ns();
    if (left_ns <= 0) break;
    waiter.wakes.wait_for(lock, std::chrono::nanoseconds(left_ns));
  }
  for (BatchSeat* seat : awaited_) seat->is_awaited = false;
  awaited_.clear();
}

std::vector<StepPart*> Batcher::choose() {
  std::ranges::sort(waiting_, goes_first, [](StepPart* part) -> BatchSeat& { return part->seat_; });
  std::vector<StepPart*> chosen;
  int rows_left = model_.max_rows();
  size_t logits_left = kMostLogitFloats / static_cast<size_t>(model_.n_vocab()) + 1;
  const auto take = [&](StepPart* part, int n_rows) {
    const size_t n_logits = part->wants_all_logits() ? static_cast<size_t>(n_rows) : 1;
    if (n_rows == 0 || n_logits > logits_left) return;
    logits_left -= n_logits;
    rows_left -= n_rows;
    part->n_rows_ = n_rows;
    part->n_drafts_ = 0;
    part->is_capped_ = false;
    part->state_ = StepPart::State::kInStep;
    chosen.push_back(part);
  };
  for (StepPart* part : waiting_) {
    if (part->n_most_rows() == 1) take(part, std::min(1, rows_left));
  }
  const auto n_decode = static_cast<int>(chosen.size());
  if (chosen.size() == waiting_.size()) share_draft_rows(chosen, logits_left);
  int rows_without_budget = rows_left;
  if (n_decode > 0) {
    rows_without_budget = std::min(rows_left, clock_.prompt_rows(n_decode, 0));
    rows_left = std::min(rows_left, clock_.prompt_rows(n_decode, latency_budget_ms_));
  }
  for (StepPart* part : waiting_) {
    int n_most = part->n_most_rows();
    if (n_most == 1) continue;
    if (part->wants_all_logits()) n_most = std::min(n_most, static_cast<int>(logits_left));
    const int n_rows = std::min(n_most, rows_left);
    take(part, n_rows);
    part->is_capped_ = n_rows < std::min(n_most, rows_without_budget);
    rows_without_budget -= n_rows;
  }
  std::erase_if(waiting_, [](StepPart* part) { return part->state_ == StepPart::State::kInStep; });
  return chosen;
}

void Batcher::share_draft_rows(std::span<StepPart* const> parts, size_t logits_left) const {
  const int n_most = std::min(model_.max_rows(), kPanelRows) - static_cast<int>(parts.size());
  int left = std::min(n_most, static_cast<int>(logits_left));
  auto n_parts = static_cast<int>(parts.size());
  for (StepPart* part : parts) {
    const int n_even = left > 0 ? (left + n_parts - 1) / n_parts : 0;
    part->n_drafts_ = std::min(part->n_draft_rows(), n_even);
    left -= part->n_drafts_;
    --n_parts;
  }
}

void Batcher::hand_out(std::span<StepPart* const> parts) {
  last_end_ns_ = monotonic_ns();
  const double prompt_ms = prompt_await_ms();
  for (StepPart* part : parts) {
    if (part->state_ != StepPart::State::kInStep) continue;
    BatchSeat& seat = part->seat_;
    seat.ticket = 0;
    seat.last_end_ns = last_end_ns_;
    if (part->status_.is_ok() && seat.away_ms <= prompt_ms) {
      seat.is_awaited = true;
      awaited_.push_back(&seat);
    }
    part->state_ = StepPart::State::kDone;
    part->waiter_->wakes.notify_one();  // under the lock: it goes with its thread's call
  }
}

std::vector<StepPart*> Batcher::make(std::vector<StepPart*> parts, const BatchWaiter& leader) {
  const auto is_stopped = [](const StepPart* part) { return part->is_stopped_.load(); };
  const uint64_t n_forks = n_forks_;
  const Status status = attempt(parts, leader);
  if (n_forks_ != n_forks) return {};
  const bool is_any_stopped = std::ranges::any_of(parts, is_stopped);
  for (StepPart* part : parts) {
    if (is_stopped(part) && (part->status_.is_ok() || !status.is_ok())) {
      part->status_ = stopped_status();
    } else if (!status.is_ok()) {
      part->status_ = status;
    }
  }
  if (status.is_ok() || parts.size() == 1) return {};
  if (status.code() == Code::kCancelled) {
    if (!is_any_stopped) return {};  // the model is being closed
    std::erase_if(parts, is_stopped);
    return parts;
  }
  for (StepPart* part : parts) {  // whose failure is it?
    std::vector<StepPart*> alone = {part};
    if (Status own = attempt(alone, leader); !own.is_ok()) part->status_ = std::move(own);
    if (n_forks_ != n_forks) return {};
  }
  return {};
}

Status Batcher::attempt(std::vector<StepPart*>& parts, const BatchWaiter& leader) {
  StepRows step;
  int n_prompt_rows = 0;
  std::erase_if(parts, [&](StepPart* part) {
    part->status_ = part->begin(part->n_rows_, part->n_drafts_, step);
    if (part->status_.is_ok() && part->n_rows_ > 1) n_prompt_rows += part->n_rows_;
    return !part->status_.is_ok();
  });
  if (parts.empty()) return {};
  const auto n_step_rows = static_cast<int>(step.rows.size());
  const int n_decode_rows = n_step_rows - n_prompt_rows;  // drafts cost no less
  const double expected_ms = [&] {
    const Lock lock(mutex_);
    return clock_.step_ms(n_step_rows);
  }();
  const int64_t start_ns = monotonic_ns();
  int64_t stopped_ns = 0;
  // A text that decodes ends with its token. A prompt's thread is not kept waiting, but others lose
  // what was made of their step: not for a few milliseconds.
  const auto should_stop = [&] {
    bool are_all = true, is_prompt = false;
    for (StepPart* part : parts) {
      if (part->waiter_ == &leader && !part->is_stopped_) part->is_stopped_ = part->stops();
      are_all = are_all && part->is_stopped_;
      is_prompt = is_prompt || (part->is_stopped_ && part->n_rows_ > 1);
    }
    if (are_all || !is_prompt) return are_all;
    if (stopped_ns == 0) stopped_ns = monotonic_ns();
    return std::max(expected_ms - ms_since(start_ns), ms_since(stopped_ns)) > kMostStopMs;
  };
  if (!step.row_hidden.empty()) step.row_hidden.resize(step.logits.size());
  if (!step.tops.empty()) step.tops.resize(step.logits.size());
  const StepOutputs outputs{.rows = step.logit_rows,
                            .logits = step.logits,
                            .tops = step.tops,
                            .row_hidden = step.row_hidden,
                            .hidden_rows = step.hidden_rows,
                            .hidden = step.hidden};
  const Status status = model_.step(step.rows, outputs, should_stop);
  const double step_ms = ms_since(start_ns);
  for (StepPart* part : parts) part->status_ = part->finish(status.is_ok(), n_step_rows, step_ms);
  if (!status.is_ok()) return status;
  const Lock lock(mutex_);
  clock_.record(n_decode_rows, n_prompt_rows, step_ms);
  return {};
}

void Batcher::before_fork() { mutex_.lock(); }

void Batcher::after_fork(bool is_child) {
  if (is_child) {
    waiting_.clear();
    awaited_.clear();
    leader_ = nullptr;
    ++n_forks_;
  }
  mutex_.unlock();
}

}  // namespace edge
