#include "tokenizer/unigram.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "tokenizer/utf8.h"

namespace edge {

namespace {

constexpr uint32_t kNotReached = UINT32_MAX;
constexpr uint32_t kUnknown = UINT32_MAX - 1;
// No token is longer than the trie is deep, so scores are needed this far ahead only.
constexpr size_t kRing = size_t{ByteTrie::kMaxDepth} * 2;
static_assert(std::has_single_bit(kRing));
// A sum over the longest text stays finite, and small against what f64 can tell apart.
constexpr double kMaxScore = 1e15;

}  // namespace

// Layout: u32 bytes of a score (4 or 8), u32 0, f64 score of an unknown character, the scores
// [n_vocab], the trie.
Status Unigram::init(const Sections& sections) {
  if (header_.byte_alphabet) return unsupported_tokenizer("unigram model over bytes");
  if (header_.unk_id == kNoId) return invalid_tokenizer("unigram model without an unk id");
  EDGE_ASSIGN_OR_RETURN(const auto bytes, sections.get(SectionId::kUnigram, "unigram"));
  SectionReader reader(bytes);
  const uint32_t score_bytes = reader.u32();
  const uint32_t reserved = reader.u32();
  const auto unknown = reader.take(8);
  if (reader.failed() || (score_bytes != 4 && score_bytes != 8) || reserved != 0) {
    return invalid_tokenizer("unigram section has a bad header");
  }
  unknown_score_ = load_le<double>(unknown.data());
  wide_scores_ = score_bytes == 8;
  const auto scores = reader.take(uint64_t{header_.n_vocab} * score_bytes);
  if (reader.failed()) return invalid_tokenizer("unigram scores are cut short");
  narrow_ = TableView<float>(scores);
  wide_ = TableView<double>(scores);
  for (uint32_t id = 0; id < header_.n_vocab; ++id) {
    // Written so that NaN fails too.
    if (!(std::fabs(score(id)) <= kMaxScore)) {
      return invalid_tokenizer("score of token " + std::to_string(id) + " is not a usable number");
    }
  }
  if (!(std::fabs(unknown_score_) <= kMaxScore)) {
    return invalid_tokenizer("score of unknown characters is not a usable number");
  }
  EDGE_ASSIGN_OR_RETURN(trie_, ByteTrie::create(reader, "unigram trie", header_.n_vocab));
  if (!reader.at_end()) return invalid_tokenizer("unigram section has trailing bytes");
  // The way back through a path goes by the lengths of its tokens.
  return trie_.for_each_value([&](uint32_t id, uint32_t depth) {
    if (vocab_.bytes(id).size() == depth) return Status::ok();
    return invalid_tokenizer("unigram trie: token " + std::to_string(id) +
                             " stands at a wrong depth");
  });
}

void Unigram::encode(std::string_view piece, PieceScratch& scratch,
                     std::vector<int32_t>& out) const {
  if (piece.empty()) return;
  find_best(piece, scratch);
  std::vector<uint32_t>& reversed = scratch.ids;
  reversed.clear();
  size_t end = piece.size();
  size_t unknown_end = end;  // [end, unknown_end) is a run of unknown characters
  while (end > 0) {
    const uint32_t id = scratch.best[end];
    if (id == kUnknown) {
      end = utf8_previous(piece, end);
      continue;
    }
    add_unknown(piece.substr(end, unknown_end - end), reversed);
    reversed.push_back(id);
    end -= vocab_.bytes(id).size();
    unknown_end = end;
  }
  add_unknown(piece.substr(0, unknown_end), reversed);
  out.insert(out.end(), reversed.rbegin(), reversed.rend());
}

// Every character boundary is reached: by a token of that one character or as unknown.
void Unigram::find_best(std::string_view piece, PieceScratch& scratch) const {
  const size_t n_bytes = piece.size();
  std::vector<uint32_t>& best = scratch.best;
  std::vector<double>& scores = scratch.scores;
  best.assign(n_bytes + 1, kNotReached);
  scores.resize(kRing);
  scores[0] = 0.0;
  const auto offer = [&](size_t end, uint32_t id, double score) {
    double& found = scores[end & (kRing - 1)];
    if (best[end] != kNotReached && !(score > found)) return;
    found = score;
    best[end] = id;
  };
  for (size_t begin = 0; begin < n_bytes;) {
    size_t next = begin;
    utf8_next(piece, next);
    const double here = scores[begin & (kRing - 1)];
    bool has_single = false;
    uint32_t node = ByteTrie::kRoot;
    for (size_t end = begin; end < n_bytes;) {
      node = trie_.child(node, static_cast<uint8_t>(piece[end]));
      if (node == ByteTrie::kNone) break;
      ++end;
      const uint32_t id = trie_.value(node);
      if (id == ByteTrie::kNone) continue;
      offer(end, id, score(id) + here);
      has_single |= end == next;
    }
    if (!has_single) offer(next, kUnknown, unknown_score_ + here);
    begin = next;
  }
}

void Unigram::add_unknown(std::string_view run, std::vector<uint32_t>& reversed) const {
  if (run.empty()) return;
  if (const uint32_t id = vocab_.find(run); id != kNoId) {
    reversed.push_back(id);
  } else if (header_.byte_fallback && has_fallback_bytes(run)) {
    for (size_t i = run.size(); i-- > 0;) {
      reversed.push_back(byte_ids_[static_cast<uint8_t>(run[i])]);
    }
  } else {
    reversed.push_back(header_.unk_id);
  }
}

}  // namespace edge
