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

// What the sequences of a step wanted, before it goes to each of them.
struct Batcher::Buffers {
  std::vector<float> logits, hidden;
};

namespace {

constexpr std::chrono::milliseconds kPollPeriod{20};  // of a waiting thread, for stops()
constexpr int kFewRows = 16;  // of a stopped sequence: the step is not begun anew without them
constexpr size_t kMostLogitFloats = size_t{4} << 20;  // of one step: 16 MiB
// How long a step waits for the sequences of the one before.
constexpr double kAwaitShare = 0.2;  // of a step's time
constexpr double kMostAwaitMs = 20;

Status stopped_status() { return {Code::kCancelled, "the sequence was stopped"}; }

bool goes_first(const BatchSeat& a, const BatchSeat& b) {
  return a.priority != b.priority ? a.priority > b.priority : a.ticket < b.ticket;
}

// Room for n_floats, which is reused.
float* reserve(std::vector<float>& values, size_t n_floats) {
  if (values.size() < n_floats) values.resize(n_floats);
  return values.data();
}

}  // namespace

Batcher::Batcher(StepModel& model, double latency_budget_ms)
    : model_(model), latency_budget_ms_(latency_budget_ms), buffers_(std::make_unique<Buffers>()) {}

Batcher::~Batcher() = default;

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
}

double Batcher::await_ms() const {
  const int n_awaited = std::max(1, static_cast<int>(awaited_.size()));
  return std::min(kAwaitShare * clock_.decode_ms(n_awaited), kMostAwaitMs);
}

void Batcher::arrive(StepPart& part, BatchWaiter& waiter) {
  BatchSeat& seat = part.seat_;
  part.waiter_ = &waiter;
  part.state_ = StepPart::State::kWaiting;
  part.status_ = {};
  part.is_stopped_ = false;
  if (seat.ticket == 0) {
    seat.ticket = next_ticket_++;
    const double away_ms = static_cast<double>(monotonic_ns() - seat.last_end_ns) * 1e-6;
    seat.comes_late = seat.last_end_ns != 0 && away_ms > await_ms();
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
  make(parts, waiter);
  lock.lock();
  if (n_forks_ != n_forks) return;  // the other threads' parts are gone
  leader_ = nullptr;
  hand_out(parts);
  if (!waiting_.empty()) waiting_.front()->waiter_->wakes.notify_one();
}

void Batcher::await_return(Lock& lock, BatchWaiter& waiter) {
  const int64_t until_ns = last_end_ns_ + static_cast<int64_t>(await_ms() * 1e6);
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
    part->state_ = StepPart::State::kInStep;
    part->seat_.ticket = 0;
    chosen.push_back(part);
  };
  for (StepPart* part : waiting_) {
    if (part->n_most_rows() == 1) take(part, std::min(1, rows_left));
  }
  const auto n_decode = static_cast<int>(chosen.size());
  if (n_decode > 0) {
    rows_left = std::min(rows_left, clock_.prompt_rows(n_decode, latency_budget_ms_));
  }
  for (StepPart* part : waiting_) {
    const int n_most = part->n_most_rows();
    if (n_most == 1) continue;
    int n_rows = std::min(n_most, rows_left);
    if (part->wants_all_logits()) n_rows = std::min(n_rows, static_cast<int>(logits_left));
    take(part, n_rows);
  }
  std::erase_if(waiting_, [](StepPart* part) { return part->state_ == StepPart::State::kInStep; });
  return chosen;
}

void Batcher::hand_out(std::span<StepPart* const> parts) {
  last_end_ns_ = monotonic_ns();
  for (StepPart* part : parts) {
    BatchSeat& seat = part->seat_;
    seat.last_end_ns = last_end_ns_;
    if (part->status_.is_ok() && !seat.comes_late) {
      seat.is_awaited = true;
      awaited_.push_back(&seat);
    }
    part->state_ = StepPart::State::kDone;
    part->waiter_->wakes.notify_one();  // under the lock: it goes with its thread's call
  }
}

void Batcher::make(std::vector<StepPart*> parts, const BatchWaiter& leader) {
  const auto is_stopped = [](const StepPart* part) { return part->is_stopped_.load(); };
  const uint64_t n_forks = n_forks_;
  while (!parts.empty()) {
    const Status status = attempt(parts, leader);
    if (n_forks_ != n_forks) return;
    if (status.is_ok()) {
      for (StepPart* part : parts) {
        if (is_stopped(part) && part->status_.is_ok()) part->status_ = stopped_status();
      }
      return;
    }
    for (StepPart* part : parts) part->status_ = is_stopped(part) ? stopped_status() : status;
    if (status.code() == Code::kCancelled) {
      if (std::erase_if(parts, is_stopped) == 0) return;  // the model is being closed
    } else {
      if (parts.size() == 1) return;
      for (StepPart* part : parts) {  // whose failure is it?
        std::vector<StepPart*> alone = {part};
        if (Status own = attempt(alone, leader); !own.is_ok()) part->status_ = std::move(own);
        if (n_forks_ != n_forks) return;
      }
      return;
    }
  }
}

Status Batcher::attempt(std::vector<StepPart*>& parts, const BatchWaiter& leader) {
  StepRows step;
  int n_prompt_rows = 0;
  std::erase_if(parts, [&](StepPart* part) {
    const size_t n_rows = step.rows.size();
    const size_t n_logits = step.logit_rows.size(), n_hidden = step.hidden_rows.size();
    part->status_ = part->begin(part->n_rows_, step);
    if (!part->status_.is_ok()) {
      step.rows.resize(n_rows);
      step.logit_rows.resize(n_logits);
      step.hidden_rows.resize(n_hidden);
      return true;
    }
    part->n_logit_rows_ = step.logit_rows.size() - n_logits;
    part->n_hidden_rows_ = step.hidden_rows.size() - n_hidden;
    if (part->n_rows_ > 1) n_prompt_rows += part->n_rows_;
    return false;
  });
  if (parts.empty()) return {};
  const int64_t start_ns = monotonic_ns();
  const Status status = run_model(parts, step, [&] {
    int n_stopped = 0, n_rows = 0;
    for (StepPart* part : parts) {
      if (part->waiter_ == &leader && !part->is_stopped_) part->is_stopped_ = part->stops();
      if (part->is_stopped_) ++n_stopped, n_rows += part->n_rows_;
    }
    return n_rows > kFewRows || n_stopped == static_cast<int>(parts.size());
  });
  const double step_ms = static_cast<double>(monotonic_ns() - start_ns) * 1e-6;
  for (StepPart* part : parts) part->status_ = part->finish(status.is_ok(), step_ms);
  if (!status.is_ok()) return status;
  const Lock lock(mutex_);
  clock_.record(static_cast<int>(step.rows.size()) - n_prompt_rows, n_prompt_rows, step_ms);
  return {};
}

Status Batcher::run_model(std::span<StepPart* const> parts, const StepRows& step,
                          const StopCheck& should_stop) {
  const auto n_vocab = static_cast<size_t>(model_.n_vocab());
  const auto d_model = static_cast<size_t>(model_.d_model());
  StepOutputs outputs{.rows = step.logit_rows, .hidden_rows = step.hidden_rows};
  StepPart* sole = parts.size() == 1 ? parts.front() : nullptr;  // gets its rows without a copy
  if (!step.logit_rows.empty()) {
    const size_t n_floats = step.logit_rows.size() * n_vocab;
    outputs.logits = sole ? sole->room(n_floats) : reserve(buffers_->logits, n_floats);
  }
  if (!step.hidden_rows.empty()) {
    const size_t n_floats = step.hidden_rows.size() * d_model;
    outputs.hidden = sole ? sole->room(n_floats) : reserve(buffers_->hidden, n_floats);
  }
  EDGE_RETURN_IF_ERROR(model_.step(step.rows, outputs, should_stop));
  if (sole != nullptr) return {};
  const auto hand_over = [](StepPart* part, size_t n_floats, const float*& from) {
    if (n_floats == 0) return;
    std::copy_n(from, n_floats, part->room(n_floats));
    from += n_floats;
  };
  const float* logits = outputs.logits;
  const float* hidden = outputs.hidden;
  for (StepPart* part : parts) {
    hand_over(part, part->n_logit_rows_ * n_vocab, logits);
    hand_over(part, part->n_hidden_rows_ * d_model, hidden);
  }
  return {};
}

void Batcher::before_fork() { mutex_.lock(); }

void Batcher::after_fork(bool is_child) {
  if (is_child) {
    if (leader_ != nullptr) {
      static_cast<void>(buffers_.release());  // perhaps half-way through a change
      buffers_ = std::make_unique<Buffers>();
    }
    waiting_.clear();
    awaited_.clear();
    leader_ = nullptr;
    ++n_forks_;
  }
  mutex_.unlock();
}

}  // namespace edge
