// ModelDrafts: what the sequences of a model draft with, for their sessions on several threads.
// Between speculation/, which knows neither threads nor sessions, and Session.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include "runtime/draft_source.h"
#include "speculation/speculation.h"

namespace edge {

class ModelDrafts {
 public:
  // budget_ms: what a step with drafts may take; 0: anything.
  ModelDrafts(const SpeculationOptions& options, CostTable costs, double budget_ms)
      : shared_(options, std::move(costs)), budget_ms_(budget_ms) {}

  // For one more sequence, which must not outlive this, and learns from the others and they from it.
  std::unique_ptr<DraftSource> source();

  CostTable costs() const;
  // The lock of all state, for fork(): a child must not inherit it half-way.
  std::mutex& mutex() { return mutex_; }

 private:
  class Source;

  mutable std::mutex mutex_;
  SharedSpeculation shared_;  // under mutex_, as all sequences' parts are
  const double budget_ms_;
};

}  // namespace edge
