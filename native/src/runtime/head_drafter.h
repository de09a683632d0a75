// HeadDrafter: the draft head of a model behind Drafter, for one sequence. A tree grows where it is
// likeliest: each pass of the head goes on from the candidate with the highest probability that all
// of it is right (EAGLE-2's dynamic trees, arXiv:2406.16858), until none is likely enough. For one
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

class HeadDrafter final : public Drafter {
 public:
  static constexpr int kMostPasses = 4;         // of the head, for one proposal
  static constexpr int kBranches = 3;           // candidates of one pass
  static constexpr float kLeastPath = 0.2F;     // probability of all of it, to go on from
  static constexpr float kLeastBranch = 0.05F;  // of a candidate, if all before is right
  static constexpr size_t kMostUnread = 512;    // tokens of a prompt; those before are not read

  // ids: DraftHead::ids(), which must outlive it, as must `acceptance`. n_head_bytes: of the head's
  // own memory that is this sequence's, for memory_bytes().
  HeadDrafter(std::unique_ptr<DraftRows> rows, std::span<const int32_t> ids,
              const Acceptance& acceptance, size_t n_head_bytes);

  DrafterKind kind() const override { return DrafterKind::kHead; }
  // Silent where hidden states of the last token are not known, and for good where the head fails.
  void propose(const DraftContext& context, Candidates& out) override;
  void observe(const DraftObservation& observation) override;
  void rewind(std::span<const int32_t> tokens) override;
  size_t memory_bytes() const override;
  bool wants_hidden() const override { return true; }
  double propose_ms() const override { return propose_ms_; }

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
    size_t at = 0;  // in ids_
    float logit = 0;
    float probability = 0;
  };

  bool read_committed();
  // A pass behind the committed rows and these nodes, from above; its state and logits.
  bool pass(std::span<const int> path);
  void branch(int parent, Candidates& out);
  int likeliest_leaf(int max_depth, const Candidates& out) const;
  void branches_of(std::span<const float> logits);
  void forget(size_t n_tokens);

  std::unique_ptr<DraftRows> rows_;
  std::span<const int32_t> ids_;
  const Acceptance& acceptance_;
  size_t n_head_bytes_;
  size_t first_ = 0;             // token of row 0
  size_t n_tokens_ = 0;          // observed
  std::vector<int32_t> unread_;  // the last of them, which have no rows yet
  std::vector<float> hidden_;    // [unread][d_model]
  bool has_root_ = false;        // states_ and logits of the last committed token are there
  bool has_failed_ = false;
  double propose_ms_ = 0;
  std::vector<Node> nodes_;
  std::vector<int> in_rows_;   // nodes whose rows stand behind the committed ones
  std::vector<float> states_;  // [passes][d_model], of the root first
  std::vector<float> logits_;  // [n_vocab] of the last pass
  std::vector<float> root_logits_;
  std::vector<Branch> branches_;
};

}  // namespace edge
