// ModelDrafts: what the sequences of a model draft with, for their sessions on several threads.
// Between speculation/, which knows neither threads nor sessions, and Session.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "runtime/draft_source.h"
#include "speculation/speculation.h"

namespace edge {

class ModelDrafts {
 public:
  struct Options {
    SpeculationOptions shared;
    double budget_ms = 0;       // that a step with drafts may take; 0: anything
    bool ignores_time = false;  // steps count as if they all took as long
    // Adds more drafters to a sequence, as far as it can; empty: there are none.
    std::function<void(SequenceSpeculation&)> add_more = {};
    uint64_t more_bytes = 0;  // that these take of a sequence's own, beside SpeculationOptions
  };
  ModelDrafts(const Options& options, CostTable costs)
      : options_(options), shared_(options.shared, std::move(costs)) {}

  // For one more sequence, which must not outlive this, and learns from the others and they from
  // it.
  std::unique_ptr<DraftSource> source();

  CostTable costs();
  // The lock of all state, for fork(): a child must not inherit it half-way.
  std::mutex& mutex() { return mutex_; }

 private:
  class Source;

  const Options options_;
  std::mutex mutex_;
  SharedSpeculation shared_;  // under mutex_, as all sequences' parts are
};

}  // namespace edge
