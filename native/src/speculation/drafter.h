// Drafter: guesses the next tokens of one sequence. What it guesses costs time if it is wrong and
// changes no result, so nothing here can fail: a drafter that has nothing to say says nothing.
// For one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "speculation/token_tree.h"

namespace edge {

struct SamplerParams;  // runtime/sampler.h

// The tokens to come are drawn by races (base/race.h) with this seed, the next one at this step and
// those after it at the following ones.
struct ComingDraws {
  uint64_t seed = 0;
  uint64_t step = 0;
  const SamplerParams* params = nullptr;  // all of them, for who has logits to draw of; not null
};

struct DraftContext {
  // The sequence's committed tokens, prompt and output, the last of which has not been through the
  // model: drafts follow it. Not empty.
  std::span<const int32_t> tokens = {};
  int max_depth = TokenTree::kMaxNodes;  // drafts further away than this are of no use
  double tokens_a_ms = 0.0;              // that time brings elsewhere; 0: time is free
  double tokens_a_row = 0.0;             // that the time of one row more of a step brings elsewhere
  const ComingDraws* draws =
      nullptr;  // of what follows `tokens`; null: it is not drawn, or not known
};

// The likeliest tokens by the logits of one row, best first; of any row, verified or not.
struct TopRow {
  int32_t token = 0;                   // the row's own token, which they follow
  std::span<const int32_t> next = {};  // [<= kTopTokens]
};
inline constexpr int kTopTokens = 8;

// What a step or the reading of a prompt made known.
struct DraftObservation {
  std::span<const int32_t> tokens = {};  // all that are committed now
  size_t n_new = 0;                      // of them the last ones are new
  std::span<const TopRow> rows = {};     // those whose logits were computed; may be fewer or none
  // [n_new][d_model], or empty unless the drafter wants_hidden(): row i is the hidden state (what
  // the head reads: StepOutputs::hidden) of the token before new token i, the row that chose it.
  // Zeros for the very first token of a sequence, which nothing chose.
  std::span<const float> hidden = {};
};

class Drafter {
 public:
  virtual ~Drafter() = default;
  virtual DrafterKind kind() const = 0;
  // Adds candidates below the last committed token, with probabilities as the drafter sees them
  // (Acceptance::probability) and the bucket by which its claims are checked against what comes.
  virtual void propose(const DraftContext& context, Candidates& out) = 0;
  // Called for every token that is committed, drafted or not, in order.
  virtual void observe(const DraftObservation& observation) = 0;
  // The sequence is now these tokens, a beginning of those observed; empty: another sequence
  // begins.
  virtual void rewind(std::span<const int32_t> tokens) = 0;
  virtual size_t memory_bytes() const = 0;
  virtual bool wants_hidden() const { return false; }
  // What the last propose() took that is not in the step itself, e.g. a draft head's passes; 0:
  // nothing worth counting. As a rule: what was read of a prompt before is not in it.
  virtual double propose_ms() const { return 0.0; }
  // What the last propose() took that comes once: of a prompt that it read.
  virtual double once_ms() const { return 0.0; }
};

}  // namespace edge
