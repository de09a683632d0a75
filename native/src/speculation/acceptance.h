// Acceptance: how often a drafter's claims of one class come true, counted where the truth is
// known: wherever the token before a candidate is right and the next one has been committed,
// whether the candidate was verified or not. Deterministic.
#pragma once

#include <array>
#include <cstddef>

#include "speculation/token_tree.h"

namespace edge {

// Bayesian counts with decay: the prior is worth kPriorWeight trials, and a trial counts for less
// the more have come after it.
class AcceptanceCounts {
 public:
  explicit AcceptanceCounts(double memory) : memory_(memory) {}

  // Of hits among trials seen, pulled to `prior` as if that had been seen `weight` times.
  double mean(DrafterKind kind, int bucket, double prior, double weight) const {
    const Count& c = at(kind, bucket);
    return (c.hits + weight * prior) / (c.trials + weight);
  }
  void count(DrafterKind kind, int bucket, bool hit) {
    Count& c = at(kind, bucket);
    const double keep = 1.0 - 1.0 / memory_;
    c.hits = c.hits * keep + (hit ? 1.0 : 0.0);
    c.trials = c.trials * keep + 1.0;
  }

 private:
  struct Count {
    double hits = 0.0;
    double trials = 0.0;
  };
  static size_t index(DrafterKind kind, int bucket) {
    return static_cast<size_t>(kind) * kDraftBuckets + static_cast<size_t>(bucket);
  }
  const Count& at(DrafterKind kind, int bucket) const { return counts_[index(kind, bucket)]; }
  Count& at(DrafterKind kind, int bucket) { return counts_[index(kind, bucket)]; }

  double memory_;
  std::array<Count, static_cast<size_t>(kDrafterKinds) * kDraftBuckets> counts_{};
};

// Of a model: what all its sequences have shown, for a new one to begin with.
class SharedAcceptance {
 public:
  static constexpr double kMemory = 2048.0;    // trials
  static constexpr double kPriorWeight = 4.0;  // of the drafter's own guess

  double mean(DrafterKind kind, int bucket, double prior) const {
    return counts_.mean(kind, bucket, prior, kPriorWeight);
  }
  void count(DrafterKind kind, int bucket, bool hit) { counts_.count(kind, bucket, hit); }

 private:
  AcceptanceCounts counts_{kMemory};
};

// Of one sequence: texts differ far more than models do, so what a sequence has shown itself soon
// outweighs the rest.
class Acceptance {
 public:
  static constexpr double kMemory = 128.0;
  static constexpr double kSharedWeight = 12.0;

  explicit Acceptance(SharedAcceptance& shared) : shared_(shared) {}

  // That a candidate of this class is right if its parent is; `prior`: the drafter's own guess.
  float probability(DrafterKind kind, int bucket, double prior) const {
    return static_cast<float>(
        counts_.mean(kind, bucket, shared_.mean(kind, bucket, prior), kSharedWeight));
  }
  void count(DrafterKind kind, int bucket, bool hit) {
    counts_.count(kind, bucket, hit);
    shared_.count(kind, bucket, hit);
  }

 private:
  SharedAcceptance& shared_;
  AcceptanceCounts counts_{kMemory};
};

}  // namespace edge
