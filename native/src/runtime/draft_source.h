// DraftSource: where the drafts of one sequence come from, and what came of them. Drafts change no
// result: a session takes them only where its caller appends the very tokens, and what a step makes
// of a row does not depend on the rows beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "speculation/drafter.h"
#include "speculation/token_tree.h"

namespace edge {

class DraftSource {
 public:
  virtual ~DraftSource() = default;

  // Once for each step of the sequence, in this order.
  // What to verify behind the last of `tokens`, which all but it have been processed, in at most
  // most_nodes rows beside n_other_rows of other sequences; empty: nothing is worth it. Every
  // beginning of the nodes is a tree that is good for its size. Valid until the next call.
  virtual const TokenTree& propose(std::span<const int32_t> tokens, int most_nodes,
                                   int n_other_rows) = 0;
  // The step has only the first n of them.
  virtual void cut(int n) = 0;
  // The tokens that came of the step, drafted or not, or before the first one all there are, and
  // what the logits of its rows said.
  virtual void observe(const DraftObservation& observation) = 0;
  // The step took so long, observe() before it included, and so many tokens came of it.
  virtual void record_step(int n_tokens, double ms) = 0;

  // The sequence has only these of its tokens left.
  virtual void rewind(std::span<const int32_t> tokens) = 0;
  // The sequence is over, with these tokens: others may draft from them.
  virtual void end(std::span<const int32_t> tokens) = 0;
  // Whether observe() wants hidden states. Where there are none, for tokens whose KV was not
  // computed here, it does without.
  virtual bool wants_hidden() const = 0;
  // Memory that it takes at most of its own.
  virtual uint64_t most_bytes() const = 0;
  // What the sequence's drafts have saved so far over steps without, as far as known.
  virtual double saved_ms() const = 0;
  // For another sequence of the same model.
  virtual std::unique_ptr<DraftSource> fresh() const = 0;
};

}  // namespace edge
