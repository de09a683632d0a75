// Speculation: which tokens the next step of a sequence should verify beside computing one. Puts
// the drafters, the choice of a tree and the controller together. For one thread at a time, all
// sequences of a model together.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "speculation/acceptance.h"
#include "speculation/controller.h"
#include "speculation/drafter.h"
#include "speculation/echoes.h"
#include "speculation/patience.h"
#include "speculation/recycling.h"
#include "speculation/text_drafter.h"
#include "speculation/text_generations.h"
#include "speculation/tree_choice.h"

namespace edge {

// Whether a drafter that costs time should be asked: when what it added lately was worth its time,
// else now and then.
class DraftGate {
 public:
  bool is_open();
  // Tokens that the best choice gained by its candidates, its time counted.
  void learn(double gain);

 private:
  static constexpr int kShortestWait = 8;  // steps
  static constexpr int kLongestWait = 256;
  double worth_ = 0.0;
  int waited_ = 0;
  int wait_ = kShortestWait;
};

struct SpeculationOptions {
  // Of all drafters here together; SharedSpeculation::memory_for() says what a model may spend.
  size_t memory_bytes = size_t{16} << 20;
  int n_vocab = 0;
  int max_sequences = 1;  // at the same time
};

// What the sequences of a model share: texts of those that ended, followers of tokens, what drafts
// were worth and what steps take.
class SharedSpeculation {
 public:
  explicit SharedSpeculation(const SpeculationOptions& options, CostTable costs = CostTable());

  // 3 % of the model or 16 MiB, whichever is larger.
  static size_t memory_for(size_t model_bytes);
  // A sequence's text, once it ends, for others to draft from; where drafting does not pay, once
  // one of them repeats what was said before.
  void keep_text(std::span<const int32_t> tokens);

  Controller& controller() { return controller_; }
  size_t sequence_bytes() const { return sequence_bytes_; }  // that each may take of its own
  size_t memory_bytes() const {
    return store_.memory_bytes() + recycling_.memory_bytes() + Echoes::kMemoryBytes;
  }

 private:
  friend class SequenceSpeculation;

  size_t sequence_bytes_;
  SharedAcceptance acceptance_;
  TextStore store_;
  RecyclingTable recycling_;
  Controller controller_;
  Echoes echoes_;
  Patience patience_;  // as the last step of any sequence left it, for a new one to begin with
  std::array<DraftGate, static_cast<size_t>(kDrafterKinds)> gates_;
};

struct DraftCounts {
  int64_t drafted = 0;  // rows that were verified
  int64_t accepted = 0;
};
using DraftCountsByKind = std::array<DraftCounts, static_cast<size_t>(kDrafterKinds)>;

class SequenceSpeculation {
 public:
  // `shared` outlives it.
  explicit SequenceSpeculation(SharedSpeculation& shared);
  SequenceSpeculation(const SequenceSpeculation&) = delete;
  SequenceSpeculation& operator=(const SequenceSpeculation&) = delete;

  // Another one to ask: a draft head, a model. It may be built on acceptance().
  void add(std::unique_ptr<Drafter> drafter) { added_.push_back(std::move(drafter)); }
  const Acceptance& acceptance() const { return acceptance_; }

  // Before each step, with all tokens committed, of which the last n_new were not in the call
  // before: whether nothing is drafted in it. Then nothing else need be called for it but
  // record_rest(); observe() may come when the rest is over, for all tokens since.
  bool rests(std::span<const int32_t> tokens, size_t n_new);
  bool is_resting() const { return patience_.is_resting(); }
  // Of propose() since the last call: what it took that comes once.
  double take_once_ms() { return std::exchange(once_ms_, 0.0); }

  struct Limits {
    int max_nodes = TokenTree::kMaxNodes;
    int n_other_rows = 0;                // of other sequences in the step
    double budget_ms = 0.0;              // latency; 0: none
    bool is_time_free = false;           // proposing takes no time, whatever it takes
    const ComingDraws* draws = nullptr;  // as in DraftContext
  };
  // The tree for the next step, empty for a plain one; valid until the next call. Each beginning
  // of it is the best tree of its size.
  const TokenTree& propose(std::span<const int32_t> tokens, const Limits& limits);
  // Only the first n nodes are verified.
  void cut(int n);

  // For every token committed, in one call or several; the prompt's too.
  void observe(const DraftObservation& observation);
  // The tokens that stay; empty: another sequence.
  void rewind(std::span<const int32_t> tokens);
  // After a step; n_committed tokens came of it. draft_ms: that proposing and learning took.
  void record_step(int n_committed, double ms, double draft_ms = 0.0);
  // After a step at rest.
  void record_rest(int n_other_rows, double ms) {
    shared_.controller_.record_plain(n_other_rows, ms);
  }

  const DraftCountsByKind& counts() const { return counts_; }
  bool wants_hidden() const;
  size_t memory_bytes() const;

 private:
  static constexpr int kLost = -2;  // no node is right any more

  template <class F>
  void for_each_drafter(F&& f) const {
    for (const auto& drafter : cheap_) f(*drafter);
    for (const auto& drafter : added_) f(*drafter);
  }

  void begin_text();
  // The last tokens of a prompt say what drafts of each would have been worth.
  void observe_prompt(const DraftObservation& observation);
  void propose_cheap(const DraftContext& context);
  // Makes of how often such candidates are right how likely each is now.
  void heed(const ComingDraws& draws);
  // Whether of the candidates of the first level, or of any below them, a step should verify some.
  bool is_worth_more(const Limits& limits) const;
  // Returns what the drafters asked took.
  double propose_added(const DraftContext& context, Controller::Question question,
                       bool is_time_free);
  // What became of the claims about the token that was committed.
  void judge(int32_t token);

  SharedSpeculation& shared_;
  Acceptance acceptance_;
  // Those that take no time worth counting, and those that may.
  std::array<std::unique_ptr<Drafter>, 3> cheap_;
  std::vector<std::unique_ptr<Drafter>> added_;
  Candidates candidates_;
  int right_candidate_ = kLost;  // what has been committed since they were proposed
  TokenTree tree_;
  int right_node_ = kLost;
  int n_other_rows_ = 0;
  Patience patience_;
  int n_echoed_ = 0;
  double once_ms_ = 0.0;
  DraftCountsByKind counts_{};
};

}  // namespace edge
