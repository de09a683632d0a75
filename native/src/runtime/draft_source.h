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

  // A step that was made: tokens that came of it, rows of other sequences in it, how long it took,
  // and what of this was called for it before, observe() and propose().
  struct Step {
    int n_tokens = 0;  // 0: there was none
    int n_other_rows = 0;
    double ms = 0;
    double drafting_ms = 0;
  };

  // Once for each step of the sequence, in this order.
  // The step before, and the tokens that stay, of which the last n_new came since. False: nothing
  // is worth drafting for now, and the rest is not called for this step; the next observe() is for
  // all tokens since.
  virtual bool begin_step(const Step& before, std::span<const int32_t> tokens, size_t n_new) = 0;
  // The tokens that came since it was called before, drafted or not, and what the logits of the
  // last step's rows said.
  virtual void observe(const DraftObservation& observation) = 0;
  // What to verify behind the last of `tokens`, which all but it have been processed, in at most
  // most_nodes rows beside n_other_rows of other sequences; empty: nothing is worth it. Every
  // beginning of the nodes is a tree that is good for its size. Valid until the next call. draws:
  // as in DraftContext.
  virtual const TokenTree& propose(std::span<const int32_t> tokens, int most_nodes,
                                   int n_other_rows, const ComingDraws* draws) = 0;
  // The step has only the first n of them.
  virtual void cut(int n) = 0;
  // Whether it drafts now, so that hidden states are wanted of a prompt.
  virtual bool is_awake() const = 0;
  // The sequence has only these of its observed tokens left.
  virtual void rewind(std::span<const int32_t> tokens) = 0;
  // The sequence is over, after this step and with these tokens: others may draft from them.
  virtual void end(const Step& last, std::span<const int32_t> tokens) = 0;
  // Whether observe() wants hidden states. Where there are none, for tokens whose KV was not
  // computed here, it does without.
  virtual bool wants_hidden() const = 0;
  // Memory that it takes at most of its own.
  virtual uint64_t most_bytes() const = 0;
  // What the sequence's drafts have saved so far over steps without, as far as known.
  virtual double saved_ms() const = 0;
  // Steps of it that verified less than would have paid, for the sake of a latency budget.
  virtual int64_t n_capped() const = 0;
  // For another sequence of the same model.
  virtual std::unique_ptr<DraftSource> fresh() const = 0;
};

}  // namespace edge
