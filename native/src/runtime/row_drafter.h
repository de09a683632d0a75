// RowDrafter: what computes rows of its own to guess by, a draft head or a small model, behind
// Drafter, for one sequence. A tree grows where it is likeliest: each pass goes on from the
// candidate with the highest probability that all of it is right (EAGLE-2's dynamic trees,
// arXiv:2406.16858), until none is likely enough for what a pass takes. Where tokens are drawn, the
// guesses are those that would be drawn of its own logits by the same numbers (race.h). For one
// thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/draft_rows.h"
#include "speculation/acceptance.h"
#include "speculation/drafter.h"

namespace edge {

class RowDrafter : public Drafter {
 public:
  static constexpr int kBranches = 3;           // candidates of one pass
  static constexpr float kLeastBranch = 0.05F;  // of a candidate, if all before is right

  DrafterKind kind() const override { return growth_.kind; }
  // Silent where what follows the last token cannot be said, and for good where a pass fails.
  void propose(const DraftContext& context, Candidates& out) override;
  size_t memory_bytes() const override;
  double propose_ms() const override { return propose_ms_; }
  double once_ms() const override { return once_ms_; }

 protected:
  struct Growth {
    DrafterKind kind;
    int most_passes;   // for one proposal
    float least_path;  // probability of all of it, to go on from, whatever a pass takes
    std::span<const int32_t> ids = {};  // what the logits are of; empty: 0, 1, ..
    size_t n_logits = 0;                // of a row, that count
    double temperature = 1;             // times the sampler's: below 1 for who is less sure
  };
  // What `growth` and `acceptance` refer to must outlive it. n_bytes: of others' memory that is
  // this sequence's, for memory_bytes().
  RowDrafter(const Growth& growth, std::unique_ptr<DraftRows> rows, const Acceptance& acceptance,
             size_t n_bytes);

  // Gives the committed tokens rows, as far as they have none: read(). False: the rows do not say
  // what follows the last of them.
  virtual bool read_committed(std::span<const int32_t> tokens) = 0;
  // As DraftRows::add(), of committed tokens up to the last one.
  bool read(std::span<const int32_t> tokens, std::span<const float> hidden);
  // What read() said last is over.
  void forget_root() { has_root_ = false; }
  DraftRows& rows() { return *rows_; }
  const DraftRows& rows() const { return *rows_; }
  int most_passes() const { return growth_.most_passes; }
  bool has_failed() const { return has_failed_; }

 private:
  // A candidate. state: that of the row behind which it stands, place in states_.
  struct Node {
    int32_t id = 0;
    int parent = -1;  // in nodes_; -1: the last committed token
    int place = -1;   // in the proposal
    float path = 0;
    int state = 0;
    bool is_expanded = false;
  };
  struct Branch {
    int32_t id = 0;
    float probability = 0;
    bool is_drawn = false;

    int bucket() const;
  };

  void grow(const DraftContext& context, Candidates& out);
  // A pass behind the committed rows and these nodes, from above; its state and logits.
  bool pass(std::span<const int> path);
  // What comes below `parent`; returns how likely the best of it is right, if all before is.
  float branch(int parent, const DraftContext& context, Candidates& out);
  int likeliest_leaf(const DraftContext& context, const Candidates& out) const;
  void find_likeliest(std::span<const float> logits);
  void find_drawn(std::span<const float> logits, const ComingDraws& draws, int depth);

  const Growth growth_;
  std::unique_ptr<DraftRows> rows_;
  const Acceptance& acceptance_;
  size_t n_bytes_;
  bool has_root_ = false;  // states_ and logits of the last committed token are there
  bool has_failed_ = false;
  double propose_ms_ = 0;
  double once_ms_ = 0;
  double pass_ms_ = 0;
  double best_of_pass_ = 0;  // probability
  std::vector<Node> nodes_;
  std::vector<int> in_rows_;   // nodes whose rows stand behind the committed ones
  int n_states_ = 0;           // the root's is the first
  std::vector<float> states_;  // [n_states][width of hidden states]
  std::vector<float> logits_;  // [n_vocab] of the last pass
  std::vector<float> root_logits_;
  std::vector<Branch> branches_;
};

}  // namespace edge
