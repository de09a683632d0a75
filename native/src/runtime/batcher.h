// Batcher: makes one step of the model out of what several sequences have to be processed. One for
// an open model, between its sessions and the StepModel. Thread-safe.
//
// No thread of its own: of the threads that wait in step(), one leads. It takes what all of them
// brought, makes the step, hands out the results, and the next one leads. Before, it waits a moment
// for the sequences of the step before, which are being sampled meanwhile, so that threads that
// decode at the same time stay together.
//
// A step has one row of every sequence that has no more than one to give, then rows of prompts: as
// many as the latency budget leaves, or as fit. Without prompts it has rows of drafts, up to as
// many rows in all as a weight is unpacked for once, which the sequences share evenly. Higher
// priorities go first, then who has waited longest. What a sequence gets depends neither on its
// company nor on how it was cut. Nor does the failure or the end of one disturb another: such a
// step is made again without it, unless it is nearly over.
//
// Knows rows and sequences, nothing of tokens, text and sampling.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "base/status.h"
#include "runtime/step_clock.h"
#include "runtime/step_model.h"

namespace edge {

// The rows of a step while it is being put together.
struct StepRows {
  std::vector<RowInput> rows;
  // As in StepOutputs.
  std::vector<int32_t> logit_rows, hidden_rows;
  std::vector<float*> logits, hidden;
  std::vector<TopTokens*> tops;    // of the first logit_rows; null, or none: logits are wanted
  std::vector<float*> row_hidden;  // of the first logit_rows; null, or none: not wanted
};

// What the batcher remembers of a sequence from one step to the next. The sequence keeps it, and
// calls Batcher::leave() before it goes.
struct BatchSeat {
  int priority = 0;         // higher ones first
  uint64_t ticket = 0;      // its place among those that wait; 0: it does not
  int64_t last_end_ns = 0;  // of its last step
  double away_ms = 0;       // as a rule, between its steps
  bool is_awaited = false;  // by the next step
};

struct BatchWaiter;  // a thread in Batcher::step()

// What one sequence gives to a step and takes from it. While its owner waits in Batcher::step() the
// functions are called by whoever leads, but stops(), which only the owner's thread calls.
class StepPart {
 public:
  explicit StepPart(BatchSeat& seat) : seat_(seat) {}
  virtual ~StepPart() = default;
  StepPart(const StepPart&) = delete;
  StepPart& operator=(const StepPart&) = delete;

  virtual int n_most_rows() const = 0;        // that a step could have of it, >= 1
  virtual int n_draft_rows() const = 0;       // that it may have besides if it has one to give
  virtual bool wants_all_logits() const = 0;  // of all rows, not only of the last one
  virtual bool stops() = 0;                   // asked between the operations of a step
  // Appends its rows and where what it wants of them goes, which stays there until finish(), or
  // nothing on failure. n_drafts: of n_draft_rows(), which come besides.
  virtual Status begin(int n_rows, int n_drafts, StepRows& step) = 0;
  // The step's end: of a step that was made, or else nothing has happened. n_step_rows: of all.
  virtual Status finish(bool is_made, int n_step_rows, double step_ms) = 0;

  // After step(): whether it was part of a step, or failed, or was stopped, perhaps when the step
  // was made already.
  bool is_done() const { return state_ == State::kDone; }
  bool was_stopped() const { return is_stopped_; }
  const Status& status() const { return status_; }
  // Whether the step would have had more of its rows but for latency_budget_ms.
  bool was_capped() const { return is_capped_; }

 private:
  friend class Batcher;
  enum class State : uint8_t { kIdle, kWaiting, kInStep, kDone };

  BatchSeat& seat_;
  BatchWaiter* waiter_ = nullptr;
  State state_ = State::kIdle;
  int n_rows_ = 0;    // in the step
  int n_drafts_ = 0;  // besides
  bool is_capped_ = false;
  Status status_;
  std::atomic<bool> is_stopped_{false};
};

class Batcher {
 public:
  // latency_budget_ms: what a step with prompts may take while others decode; 0: StepClock. `model`
  // must outlive it.
  explicit Batcher(StepModel& model, double latency_budget_ms = 0)
      : model_(model), latency_budget_ms_(latency_budget_ms) {}
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  StepModel& model() const { return model_; }

  // Waits until a step has had rows of one of these parts at least, or one of them was stopped.
  // Parts with is_done() had theirs; the others keep their turn for the next call.
  void step(std::span<StepPart* const> parts);

  // The sequence of this seat does not come back.
  void leave(BatchSeat& seat);

  // Around a fork(): the child has none of the threads that wait here.
  void before_fork();
  void after_fork(bool is_child);

 private:
  using Lock = std::unique_lock<std::mutex>;

  double prompt_await_ms() const;
  void arrive(StepPart& part, BatchWaiter& waiter);
  void withdraw(StepPart& part);
  void lead(Lock& lock, BatchWaiter& waiter);
  void await_return(Lock& lock, BatchWaiter& waiter);
  std::vector<StepPart*> choose();
  void share_draft_rows(std::span<StepPart* const> parts, size_t logits_left) const;
  void hand_out(std::span<StepPart* const> parts);
  void poll(Lock& lock, std::span<StepPart* const> parts);
  // Gives every part its status but those that it returns: they have to go again, without others
  // that were stopped meanwhile.
  std::vector<StepPart*> make(std::vector<StepPart*> parts, const BatchWaiter& leader);
  // One step of these parts, without those that cannot begin: kCancelled also when one has stopped.
  Status attempt(std::vector<StepPart*>& parts, const BatchWaiter& leader);

  StepModel& model_;
  const double latency_budget_ms_;
  std::mutex mutex_;  // held briefly, never while a step runs or is_stopped is asked
  std::vector<StepPart*> waiting_;
  std::vector<BatchSeat*> awaited_;  // of the last step, not back yet
  BatchWaiter* leader_ = nullptr;
  uint64_t next_ticket_ = 1;
  int64_t last_end_ns_ = 0;
  std::atomic<uint64_t> n_forks_{0};  // whose child this process is
  StepClock clock_;                   // under mutex_
};

}  // namespace edge
