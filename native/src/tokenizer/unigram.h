// Unigram model: the path of tokens through a piece whose scores have the highest sum. Semantics
// are HF's: sums in f64 from the left, ties to the token that begins earlier, unknown characters
// fused.
#pragma once

#include <string_view>
#include <vector>

#include "tokenizer/piece_model.h"
#include "tokenizer/trie.h"

namespace edge {

class Unigram final : public PieceModel {
 public:
  void encode(std::string_view piece, PieceScratch& scratch,
              std::vector<int32_t>& out) const override;

 protected:
  Status init(const Sections& sections) override;

 private:
  double score(uint32_t id) const {
    return wide_scores_ ? wide_[id] : static_cast<double>(narrow_[id]);
  }
  void find_best(std::string_view piece, PieceScratch& scratch) const;
  // Puts the ids of a run of unknown characters, last one first.
  void add_unknown(std::string_view run, std::vector<uint32_t>& reversed) const;

  ByteTrie trie_;  // text -> id, of the tokens that text may become
  bool wide_scores_ = false;
  TableView<float> narrow_;  // [n_vocab], one of the two
  TableView<double> wide_;
  double unknown_score_ = 0.0;
};

}  // namespace edge
