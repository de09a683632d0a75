#include "runtime/model_drafts.h"

namespace edge {

class ModelDrafts::Source final : public DraftSource {
 public:
  explicit Source(ModelDrafts& model) : model_(model), own_(model.shared_) {
    if (model.options_.add_more) model.options_.add_more(own_);
  }

  bool begin_step(const Step& before, std::span<const int32_t> tokens, size_t n_new) override {
    const std::lock_guard lock(model_.mutex_);
    record(before);
    return !own_.rests(tokens, n_new);
  }
  const TokenTree& propose(std::span<const int32_t> tokens, int most_nodes, int n_other_rows,
                           const ComingDraws* draws) override {
    const std::lock_guard lock(model_.mutex_);
    const Controller& controller = model_.shared_.controller();
    const int64_t n_capped_before = controller.n_capped();
    const TokenTree& tree = own_.propose(tokens, {.max_nodes = most_nodes,
                                                  .n_other_rows = n_other_rows,
                                                  .budget_ms = model_.options_.budget_ms,
                                                  .is_time_free = model_.options_.ignores_time,
                                                  .draws = draws});
    n_capped_ += controller.n_capped() - n_capped_before;
    return tree;
  }
  void cut(int n) override {
    const std::lock_guard lock(model_.mutex_);
    own_.cut(n);
  }
  void observe(const DraftObservation& observation) override {
    const std::lock_guard lock(model_.mutex_);
    own_.observe(observation);
  }
  void rewind(std::span<const int32_t> tokens) override {
    const std::lock_guard lock(model_.mutex_);
    own_.rewind(tokens);
  }
  void end(const Step& last, std::span<const int32_t> tokens) override {
    const std::lock_guard lock(model_.mutex_);
    record(last);
    model_.shared_.keep_text(tokens);
  }
  bool is_awake() const override {
    const std::lock_guard lock(model_.mutex_);
    return !own_.is_resting();
  }
  bool wants_hidden() const override { return own_.wants_hidden(); }
  uint64_t most_bytes() const override {
    return model_.shared_.sequence_bytes() + model_.options_.more_bytes;
  }
  double saved_ms() const override { return saved_ms_; }
  int64_t n_capped() const override { return n_capped_; }
  std::unique_ptr<DraftSource> fresh() const override { return model_.source(); }

 private:
  void record(const Step& step) {
    if (step.n_tokens == 0) return;
    const bool is_timed = !model_.options_.ignores_time;
    const double ms = is_timed ? step.ms : 1.0;
    if (own_.is_resting()) return own_.record_rest(step.n_other_rows, ms);
    const double before_ms = model_.shared_.controller().saved_ms();
    // What came once is lost, but no reason to rest: it does not come again.
    const double once_ms = is_timed ? own_.take_once_ms() : 0.0;
    own_.record_step(step.n_tokens, ms, is_timed ? step.drafting_ms - once_ms : 0.0);
    saved_ms_ += model_.shared_.controller().saved_ms() - before_ms - once_ms;
  }

  ModelDrafts& model_;
  SequenceSpeculation own_;
  double saved_ms_ = 0;
  int64_t n_capped_ = 0;
};

std::unique_ptr<DraftSource> ModelDrafts::source() {
  const std::lock_guard lock(mutex_);
  return std::make_unique<Source>(*this);
}

CostTable ModelDrafts::costs() {
  const std::lock_guard lock(mutex_);
  return shared_.controller().costs();
}

}  // namespace edge
