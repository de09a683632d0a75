// DraftSource: where the drafts of one sequence come from, and what came of them. Drafts change no
// result: a session takes them only where its caller appends the very tokens, and what a step makes
// of a row does not depend on the rows beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "speculation/drafter.h"
#include "speculation/token_tree.h"

namespace edge {

// A step that a decoding sequence took part in.
struct DraftedStep {
  int n_rows = 0;    // of all sequences, drafted ones included
  int n_drafts = 0;  // of these, what the sequence drafted
  int n_tokens = 0;  // that the sequence got out of it: 1, and the drafts that came true
  double ms = 0;     // with what drafting itself took
};

class DraftSource {
 public:
  virtual ~DraftSource() = default;
  // What to verify behind the last token, in at most most_nodes rows; empty: nothing is worth it.
  // Every beginning of its nodes is a tree that is good for its size. Valid until the next call.
  virtual const TokenTree& propose(const DraftContext& context, int most_nodes) = 0;
  // In order: every token, drafted or not, and what the logits of rows said.
  virtual void observe(const DraftObservation& observation) = 0;
  virtual void rewind(size_t n_tokens) = 0;
  virtual void record_step(const DraftedStep& step) = 0;
  // What the sequence's drafts have saved so far over steps without, as far as known.
  virtual double saved_ms() const = 0;
  // For another sequence of the same model.
  virtual std::unique_ptr<DraftSource> fresh() const = 0;
};

}  // namespace edge
